#!/usr/bin/env bash
# A private single-node Apache Kafka (KRaft), 127.0.0.1 only.
#
#   scripts/kafka.sh libs               fetches the jars once and prints their directory
#   scripts/kafka.sh start   DIR [PORT] formats DIR the first time; prints the bootstrap address when Kafka answers
#   scripts/kafka.sh stop    DIR
#   scripts/kafka.sh restart DIR
#   scripts/kafka.sh kill    DIR        kill -9 of the broker; its data stays (for tests)
#   scripts/kafka.sh status  DIR        exit 0 when it answers
#   scripts/kafka.sh destroy DIR        stops it and deletes DIR
#
# DIR holds: port, pid (java's own), server.properties, server.log and data. Without PORT: the remembered one, else a
# free one from 19092. The controller listens on the next free port above. The jars come from $TIDEMARK_KAFKA_LIBS
# when that is set. KAFKA_TIMEOUT: seconds to wait for the broker, 60 unless told.
# KAFKA_SECURE=PASSWORD (tests only) adds a listener with TLS and SASL on localhost: port in DIR/secure_port,
# certificate in DIR/cert.pem, user alice with that password for PLAIN and, from the first start on, SCRAM-SHA-512; for
# OAUTHBEARER any unsigned token that has not expired.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0" >&2 && exit 64; }

# Maven's own word for it is the marker: a half-copied directory is never taken for a whole one.
libs() {
    local libs=${TIDEMARK_KAFKA_LIBS:-$TOOLS/kafka/libs} pom=$ROOT/tests/kafka/pom.xml
    if [ -n "${TIDEMARK_KAFKA_LIBS:-}" ]; then
        compgen -G "$libs/kafka_*.jar" >/dev/null ||
            die "TIDEMARK_KAFKA_LIBS=$libs holds no kafka jar" "unset it; scripts/kafka.sh libs fetches the jars"
    else
        mkdir -p "$TOOLS/kafka"
        (
            flock 9
            if ! cmp -s "$pom" "$libs/.pom"; then
                say "    fetching Kafka's jars from Maven Central (about 45 MB, once)"
                rm -rf "$libs"
                quietly kafka-jars "check the network and Maven's settings, then try again" \
                    fetch_jars "$pom" "$libs"
                cp "$pom" "$libs/.pom"
            fi
        ) 9>"$TOOLS/kafka/lock"
    fi
    printf '%s\n' "$libs"
}
# The plugin's version is pinned, or each Maven would take another.
fetch_jars() {
    mvn -B -ntp -f "$1" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$2"
}

port() { cat "$DIR/port"; }
alive() { [ -e "$DIR/pid" ] && grep -qsa kafka.Kafka "/proc/$(cat "$DIR/pid")/cmdline"; }
bootstrap() { printf '127.0.0.1:%s\n' "$(port)"; }

configure() {
    local port=$1 controller
    controller=$(free_port "$((port + 1))")
    printf '%s\n' process.roles=broker,controller node.id=1 "controller.quorum.voters=1@127.0.0.1:$controller" \
        "log.dirs=$DIR/data" "listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller" \
        "advertised.listeners=PLAINTEXT://127.0.0.1:$port" inter.broker.listener.name=PLAINTEXT \
        controller.listener.names=CONTROLLER \
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT \
        offsets.topic.replication.factor=1 offsets.topic.num.partitions=4 \
        transaction.state.log.replication.factor=1 transaction.state.log.min.isr=1 \
        transaction.state.log.num.partitions=4 share.coordinator.state.topic.replication.factor=1 \
        share.coordinator.state.topic.min.isr=1 group.initial.rebalance.delay.ms=0 \
        auto.create.topics.enable=false num.network.threads=2 num.io.threads=2 \
        log.retention.check.interval.ms=1000 log.cleaner.backoff.ms=500 group.min.session.timeout.ms=1000 \
        >"$DIR/server.properties"
    [ -z "${KAFKA_SECURE:-}" ] || secure "$port" "$controller"
    printf '%s\n' rootLogger.level=warn rootLogger.appenderRef.0.ref=c appender.0.type=Console appender.0.name=c \
        appender.0.layout.type=PatternLayout 'appender.0.layout.pattern=%d{ISO8601} %p %c: %m%n' \
        logger.k.name=kafka.server logger.k.level=info >"$DIR/log4j2.properties"
    printf '%s\n' "$port" >"$DIR/port"
}

secure() {
    local port=$1 controller=$2 secure listener=listener.name.sasl_ssl modules=org.apache.kafka.common.security
    secure=$(cat "$DIR/secure_port" 2>/dev/null || free_port "$((controller + 1))")
    [ -e "$DIR/cert.pem" ] || quietly kafka-certificate "is openssl installed?" \
        openssl req -x509 -newkey rsa:2048 -nodes -keyout "$DIR/key.pem" -out "$DIR/cert.pem" -days 3650 \
        -subj /CN=tidemark-test -addext subjectAltName=DNS:localhost
    cat "$DIR/key.pem" "$DIR/cert.pem" >"$DIR/keystore.pem"
    sed -i "s|^listeners=.*|&,SASL_SSL://127.0.0.1:$secure|; s|^advertised.listeners=.*|&,SASL_SSL://localhost:$secure|
        s|^listener.security.protocol.map=.*|&,SASL_SSL:SASL_SSL|" "$DIR/server.properties"
    printf '%s\n' ssl.keystore.type=PEM "ssl.keystore.location=$DIR/keystore.pem" \
        sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER \
        "$listener.plain.sasl.jaas.config=$modules.plain.PlainLoginModule required user_alice=\"$KAFKA_SECURE\";" \
        "$listener.scram-sha-512.sasl.jaas.config=$modules.scram.ScramLoginModule required;" \
        "$listener.oauthbearer.sasl.jaas.config=$modules.oauthbearer.OAuthBearerLoginModule required "\
"unsecuredLoginStringClaim_sub=\"alice\";" \
        >>"$DIR/server.properties"
    printf '%s\n' "$secure" >"$DIR/secure_port"
}

start() {
    local wanted=${1:-} fixed=1 jars java id
    case $wanted in
        *[!0-9]*) die "\"$wanted\" is not a port" "scripts/kafka.sh start DIR PORT" ;;
        '' | 0) fixed='' wanted=$(cat "$DIR/port" 2>/dev/null || echo 19092) ;;
    esac
    if alive && [ "$(port)" = "$wanted" ] && port_busy "$wanted"; then
        bootstrap
        return
    fi
    stop
    command -v java >/dev/null || die "Kafka needs Java 17, and there is no java" "run scripts/deps.sh kafka"
    [ -n "$fixed" ] || wanted=$(free_port "$wanted")
    ! port_busy "$wanted" || die "port $wanted on 127.0.0.1 is taken" "choose another: scripts/kafka.sh start DIR PORT"
    jars=$(libs)
    java=(java -Xms256m -Xmx512m -XX:+UseSerialGC "-Dlog4j2.configurationFile=file:$DIR/log4j2.properties"
        -cp "$jars/*")
    configure "$wanted"
    if [ ! -e "$DIR/data/meta.properties" ]; then
        rm -rf "$DIR/data" # a half-formatted folder is refused
        id=$("${java[@]}" kafka.tools.StorageTool random-uuid 2>>"$DIR/format.log")
        "${java[@]}" kafka.tools.StorageTool format -t "$id" -c "$DIR/server.properties" \
            ${KAFKA_SECURE:+--add-scram "SCRAM-SHA-512=[name=alice,password=$KAFKA_SECURE]"} >>"$DIR/format.log" 2>&1 ||
            die "Kafka cannot format $DIR/data" "read $DIR/format.log; scripts/kafka.sh destroy $DIR starts over"
    fi
    until launch "$wanted" "${java[@]}"; do
        # Somebody took the port while Java was starting: the next one, unless we were told this one.
        if [ -n "$fixed" ] || ! grep -qs 'BindException\|Address already in use' "$DIR/server.log"; then
            tail -n 15 "$DIR/server.log" | cut -c1-300 | sed 's/^/    | /' >&2
            die "Kafka stopped while starting" "read the lines above; the whole log is $DIR/server.log"
        fi
        wanted=$(free_port "$((wanted + 2))")
        configure "$wanted"
    done
    bootstrap
}

# launch PORT JAVA...: returns when the broker says that it started; fails when it ended instead.
launch() {
    local port=$1 waited=0
    shift
    rm -f "$DIR/pid"
    # A session of its own, so that a Ctrl-C for us is none for Kafka; exec, so that the pid is java's.
    # shellcheck disable=SC2016
    setsid bash -c 'echo $$ >"$0/pid" && exec "$@"' "$DIR" "$@" kafka.Kafka "$DIR/server.properties" \
        >"$DIR/server.log" 2>&1 </dev/null &
    until grep -qs 'Kafka Server started' "$DIR/server.log" && port_busy "$port"; do
        waited=$((waited + 1))
        if [ "$waited" -gt 10 ] && ! alive; then return 1; fi
        [ "$waited" -le $((${KAFKA_TIMEOUT:-60} * 5)) ] ||
            die "Kafka does not answer on 127.0.0.1:$port after ${KAFKA_TIMEOUT:-60} s" \
                "read $DIR/server.log; KAFKA_TIMEOUT=120 waits longer"
        sleep 0.2
    done
}

stop_with() {
    local signal=$1 waited=0
    if alive; then
        kill "-$signal" "$(cat "$DIR/pid")"
        while alive; do
            waited=$((waited + 1))
            # A broker that does not stop in 20 s is killed: its log recovers at the next start.
            if [ "$waited" = 200 ]; then kill -KILL "$(cat "$DIR/pid")" 2>/dev/null || true; fi
            sleep 0.1
        done
        # A process that is killed loses its memory, and so its name, before its sockets.
        for ((waited = 0; waited < 100; waited++)); do
            port_busy "$(port)" || break
            sleep 0.1
        done
    fi
    rm -f "$DIR/pid"
}
stop() { stop_with TERM; }

if [ "${1:-}" = libs ]; then
    libs
    exit
fi
[ $# -ge 2 ] || usage
COMMAND=$1
mkdir -p "$2" && DIR=$(cd "$2" && pwd)
case $COMMAND in
    start) start "${3:-}" ;;
    stop) stop ;;
    restart)
        stop
        start
        ;;
    kill) stop_with KILL ;;
    status)
        { alive && port_busy "$(port)"; } || die "no Kafka answers for $DIR" "scripts/kafka.sh start $DIR"
        say "Kafka answers at $(bootstrap)"
        ;;
    destroy)
        stop
        rm -rf "$DIR"
        ;;
    *) usage ;;
esac
