# Sourced by `dev/servers`: a PostgreSQL of our own, on 127.0.0.1 only.
# shellcheck shell=bash disable=SC2153

POSTGRES_START_SECONDS=60
POSTGRES_STOP_SECONDS=20

# Sets PG_BIN, installing the server first if there is none.
postgres_prepare() {
    postgres_find && return
    postgres_install
    postgres_find || die "PostgreSQL is installed, but its initdb was not found"
}

postgres_find() {
    local bin
    bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    [[ -x $bin/initdb ]] || bin=$(pg_config --bindir 2>/dev/null) || return 1
    [[ -x $bin/initdb && -x $bin/postgres ]] || return 1
    PG_BIN=$bin
}

# Debian starts a server of its own on port 5432 as soon as the package is
# installed, unless its configuration says no before that.
postgres_install() {
    local settings=/etc/postgresql-common/createcluster.conf
    may_install PostgreSQL postgresql
    install_packages PostgreSQL postgresql-common
    "${AS_ROOT[@]}" sed -i '/^#\?create_main_cluster/d' "$settings"
    echo 'create_main_cluster = false' | "${AS_ROOT[@]}" tee -a "$settings" >/dev/null
    install_packages PostgreSQL postgresql
}

# Prints the pid of our server, if it runs. The pid file alone may be stale,
# and its pid another process by now.
postgres_pids() {
    local pid
    read -r pid 2>/dev/null <"$DATA/postgres/postmaster.pid" || return 0
    if grep -qzxF -- "$DATA/postgres" "/proc/$pid/cmdline" 2>/dev/null; then
        echo "$pid"
    fi
}

# Sets PG_PORT to the port that our server was last started on.
postgres_read_settings() {
    read -r PG_PORT 2>/dev/null <"$STATE/postgres.settings"
}

postgres_last_url() {
    ! postgres_read_settings || echo "postgres://postgres@127.0.0.1:$PG_PORT/movies"
}

postgres_is_up() {
    postgres_read_settings && [[ -n $(postgres_pids) ]] && postgres_find && postgres_answers
}

postgres_answers() {
    "$PG_BIN/pg_isready" -q -h 127.0.0.1 -p "$PG_PORT" -U postgres -d postgres -t 3
}

# Starts the server and waits until there is a database `movies`.
postgres_start() {
    postgres_stop # One that runs but does not answer.
    free_port "$FIRST_PG_PORT"
    PG_PORT=$PORT
    say "starting PostgreSQL on port $PG_PORT …"
    : >"$STATE/postgres.log"
    [[ -f $DATA/postgres/PG_VERSION ]] || postgres_init
    postgres_configure
    echo "$PG_PORT" >"$STATE/postgres.settings"

    detach "$STATE/postgres.log" "${AS_NOBODY[@]}" "$PG_BIN/postgres" -D "$DATA/postgres"
    STARTED+=(postgres)
    wait_for_answer "$POSTGRES_START_SECONDS" postgres_answers && postgres_create_database || {
        show_end_of "$STATE/postgres.log"
        die "PostgreSQL did not start"
    }
}

postgres_init() {
    local folder=$DATA/postgres
    rm -rf "$folder"
    mkdir -m 700 "$folder"
    ((EUID != 0)) || chown nobody: "$folder"
    # From a folder that the unprivileged user can enter.
    run_logged "$STATE/postgres.log" env -C / "${AS_NOBODY[@]}" "$PG_BIN/initdb" \
        -D "$folder" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync ||
        die "could not create a PostgreSQL data folder"
    echo "include 'etl.conf'" >>"$folder/postgresql.conf"
}

# In a file rather than on the command line, so that a test that restarts the
# server with pg_ctl gets the same one.
postgres_configure() {
    cat >"$DATA/postgres/etl.conf" <<CONF
port = $PG_PORT
listen_addresses = '127.0.0.1'
unix_socket_directories = ''    # its path would soon be too long
max_connections = 200
shared_buffers = 256MB
# Killing the server loses nothing this way, only a crash of the machine does.
fsync = ${ETL_DEV_FSYNC:-off}
full_page_writes = ${ETL_DEV_FSYNC:-off}
CONF
}

postgres_create_database() {
    local psql=("$PG_BIN/psql" -X -q -A -t -h 127.0.0.1 -p "$PG_PORT" -U postgres -d postgres)
    local found
    found=$("${psql[@]}" -c "SELECT 1 FROM pg_database WHERE datname = 'movies'") || return 1
    [[ -n $found ]] || "${psql[@]}" -c 'CREATE DATABASE movies'
}

# Stops our server: first without waiting for clients, then without a
# checkpoint, then for sure.
postgres_stop() {
    local signal
    [[ -n $(postgres_pids) ]] || return 0
    for signal in INT QUIT KILL; do
        # shellcheck disable=SC2046 # no pid, no argument
        kill -"$signal" $(postgres_pids) 2>/dev/null || true
        ! wait_for_end "$POSTGRES_STOP_SECONDS" postgres_pids || return 0
    done
    say "PostgreSQL (pid $(postgres_pids)) does not end"
    return 1
}
