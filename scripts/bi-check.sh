#!/usr/bin/env bash
# What a BI tool sees, through the JDBC driver that Metabase uses: `make bi-check`. Fails, with their names, when it
# finds partitions, storage, or anything without a comment or with a type that dashboards cannot use.
#
#   scripts/bi-check.sh            the database of `make demo`, as its login analyst
#   scripts/bi-check.sh libs       fetches the driver once and prints its directory
#
# BI_URL=postgresql://reader:password@host:5432/db names another database. BI_COLUMNS=1 lists every column as well.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

LIBS=$TOOLS/bi/libs
# The pom is the marker: a half-copied directory is never taken for a whole one.
libs() {
    local pom=$ROOT/tests/bi/pom.xml
    mkdir -p "$TOOLS/bi"
    (
        flock 9
        if ! cmp -s "$pom" "$LIBS/.pom"; then
            command -v mvn >/dev/null ||
                die "the JDBC driver is fetched with Maven, and there is no mvn" "run scripts/deps.sh test"
            say "    fetching the JDBC driver from Maven Central (about 1 MB, once)"
            rm -rf "$LIBS"
            # The plugin's version is pinned, or each Maven would take another.
            quietly jdbc-driver "check the network and Maven's settings, then try again" \
                mvn -B -ntp -f "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
                -DincludeScope=runtime -DoutputDirectory="$LIBS"
            cp "$pom" "$LIBS/.pom"
        fi
    ) 9>"$TOOLS/bi/lock"
    printf '%s\n' "$LIBS"
}

case ${1:-} in
    '') ;;
    libs)
        libs
        exit
        ;;
    *) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0" >&2 && exit 64 ;;
esac

command -v java >/dev/null || die "the check is a Java program, and there is no java" "run scripts/deps.sh test"
has_java_compiler ||
    die "this java cannot run a source file: it has no compiler" \
        "run scripts/deps.sh test, or put a JDK 17 or later on PATH"
if [ -z "${BI_URL:-}" ]; then
    demo=${DEMO_DIR:-$RUN/demo}/pg
    "$ROOT/scripts/pg.sh" status "$demo" >/dev/null 2>&1 ||
        die "the demo's Postgres does not run, and no other database was named" \
            "make demo, or name a login that is a member of tidemark_reader: make bi-check BI_URL=postgresql://..."
    BI_URL=postgresql://analyst:analyst@127.0.0.1:$(cat "$demo/port")/tidemark
fi
libs >/dev/null
export BI_URL # the password is in it, so it is no argument
# Source files are read in the locale's encoding otherwise.
exec java -XX:+UseSerialGC -Dfile.encoding=UTF-8 -cp "$LIBS/*" "$ROOT/tests/bi/Check.java" ${BI_COLUMNS:+--columns}
