# Sourced by the scripts of this folder: messages, missing packages, ports, processes.
# shellcheck shell=bash

# What runs a program as an unprivileged user: PostgreSQL and Elasticsearch
# refuse root. Empty when we are not root: then they run as ourselves.
AS_NOBODY=()
if ((EUID == 0)); then
    AS_NOBODY=(setpriv --reuid=nobody --regid="$(id -gn nobody)" --clear-groups)
fi

# Prints one progress line. A reader who went away (`| head`) is no reason to
# fail: the servers must be stopped all the same.
say() {
    printf '%s: %s\n' "${SPEAKER:-servers}" "$*" >&2 || true
}

die() {
    say "$*"
    exit 1
}

show_end_of() {
    say "the end of $1:"
    tail -n 20 "$1" >&2 || true
}

# ------------------------------------------------------------------ packages

# may_install WHAT PACKAGE…: ends with the advice to install WHAT unless we may
# do so. Sets AS_ROOT, which runs a command as root.
may_install() {
    local advice="$1 not found, please install it"
    shift
    command -v apt-get >/dev/null || die "$advice (Debian calls it: $*)"
    AS_ROOT=()
    if ((EUID != 0)); then
        sudo -n true 2>/dev/null || die "$advice: apt-get install $*"
        AS_ROOT=(sudo -n)
    fi
}

# install_packages WHAT PACKAGE…: installs Debian packages for WHAT.
install_packages() {
    may_install "$@"
    shift
    say "installing $* …"
    apt_get update && apt_get install -y --no-install-recommends "$@" ||
        die "could not install $*"
}

apt_get() {
    run_logged "$STATE/install.log" "${AS_ROOT[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -o DPkg::Lock::Timeout=120 "$@"
}

# need_tool TOOL: installs the Debian package of that name unless TOOL is there.
need_tool() {
    command -v "$1" >/dev/null || install_packages "$1" "$1"
}

# --------------------------------------------------------------------- ports

# free_port FIRST: sets PORT to the first free port of the 50 from FIRST on. It
# stays ours until we end: a server binds it only later, and another dev/servers
# may be looking for ports meanwhile.
free_port() {
    local lock folder=${TMPDIR:-/tmp}/etl-dev-ports-$EUID
    make_own_folder "$folder"
    for ((PORT = $1; PORT < $1 + 50; PORT++)); do
        exec {lock}>"$folder/$PORT"
        ! { flock -n "$lock" && is_free "$PORT"; } || return 0
        exec {lock}>&-
    done
    die "no free port from $1 to $((PORT - 1))"
}

# Makes a folder where anybody may have made one before us.
make_own_folder() {
    mkdir -p "$1"
    [[ -O $1 ]] || die "$1 belongs to somebody else"
}

# True if nothing accepts a connection on the port and it can be bound.
is_free() {
    ! (exec {probe}<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && can_bind "$1"
}

# Bash cannot bind. Perl is on every Debian; elsewhere the first check must do.
can_bind() {
    command -v perl >/dev/null || return 0
    perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new(
        LocalAddr => "127.0.0.1", LocalPort => shift, Listen => 1, ReuseAddr => 1)' "$1"
}

# ----------------------------------------------------------------- processes

# The pid of what `run_logged` runs, for the exit trap; empty if nothing.
JOB=

# run_logged LOG COMMAND…: runs a long command with its output in LOG only,
# and shows the end of LOG if it fails. It runs in the background because Bash
# would put off our traps until the end of a command in the foreground.
run_logged() {
    local log=$1 failed=0
    shift
    "$@" </dev/null >>"$log" 2>&1 &
    JOB=$!
    tick_from_now
    while kill -0 "$JOB" 2>/dev/null; do
        sleep 0.2
        tick
    done
    wait "$JOB" || failed=1
    JOB=
    ((failed == 0)) || show_end_of "$log"
    return "$failed"
}

end_job() {
    [[ -n $JOB ]] || return 0
    kill "$JOB" 2>/dev/null || true
    wait "$JOB" || true
    JOB=
}

# take_lock FD WHAT: waits until no other dev/servers does WHAT. In small
# steps, since our traps could not interrupt a flock.
take_lock() {
    flock -n "$1" && return
    say "waiting for another dev/servers, which $2 …"
    tick_from_now
    until flock -n "$1"; do
        sleep 0.5
        tick
    done
}

# detach LOG COMMAND…: starts a server in a session of its own, output to LOG,
# and sets SERVER to its pid. It inherits none of our files: a caller that
# reads our output through a pipe, and whoever waits for one of our locks,
# must not have to wait for the server.
detach() {
    local log=$1 fd
    shift
    (
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            ((fd <= 2)) || exec {fd}>&-
        done
        cd "$DATA" # For whatever a server that crashes drops.
        exec setsid "$@"
    ) </dev/null >>"$log" 2>&1 &
    SERVER=$!
    disown "$SERVER" # Bash is not to report its end, if a test kills it.
}

# wait_for_answer SECONDS CHECK: waits until CHECK succeeds. Fails when it has
# not after SECONDS, and at once when SERVER has ended.
wait_for_answer() {
    local deadline=$((SECONDS + $1)) check=$2
    tick_from_now
    until "$check"; do
        kill -0 "$SERVER" 2>/dev/null && ((SECONDS < deadline)) || return 1
        sleep 0.3
        tick
    done
}

# wait_for_end SECONDS PIDS: PIDS is a command that prints the pids still
# there. Fails if some are after SECONDS.
wait_for_end() {
    local deadline=$((SECONDS + $1)) pids=$2
    while [[ -n $("$pids") ]]; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# A sign of life every ten seconds while something takes long.
tick_from_now() {
    TICK_BEGIN=$SECONDS
    TICK_NEXT=$((SECONDS + 10))
}

tick() {
    ((SECONDS >= TICK_NEXT)) || return 0
    TICK_NEXT=$((SECONDS + 10))
    say "… $((SECONDS - TICK_BEGIN)) s"
}
