#!/usr/bin/env bash
# The packages, installed as a user would, used, and removed: for `make test-matrix`, in its chroots. Needs root, and a
# system that may be changed: it refuses others.
#
# Builds the extension's package there. The loader's is taken from $TIDEMARK_PREBUILT.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
[ -n "${TIDEMARK_CHROOT:-}" ] || die "this installs packages, and removes them" "make test-matrix runs it in chroots"
use_postgres
cd "$ROOT"

version=${PGFEATURE#pg}
package=postgresql-$version-tidemark
libdir=$("$PG_CONFIG" --pkglibdir)
extdir=$("$PG_CONFIG" --sharedir)/extension
server=$(mktemp -d /tmp/tidemark-deb.XXXXXX)
chmod 755 "$server"
trap '"$ROOT/scripts/pg.sh" destroy "$server/pg"; rm -rf "$server"' EXIT

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends "$@"; }
# What of tidemark is on this system: nothing more must be left at the end. Another checkout that was tested in this
# chroot may be there from the start.
traces() {
    find / -xdev \( -path /proc -o -path "$ROOT" -o -path /tmp -o -path /root \) -prune -o -name '*tidemark*' \
        ! -path '/var/lib/apt/*' ! -path '/.tidemark-packages' -print
}
same() { [ "$2" = "$3" ] || die "$1: expected \"$2\", found \"$3\"" "read scripts/test-deb.sh"; }

# Left by an installation without a package.
rm -f "$libdir/tidemark.so" "$extdir"/tidemark*
before=$(traces)

"$ROOT/scripts/deb.sh" extension
deb=$(ls "$ROOT"/dist/"$package"_*.deb)
loader=$(ls "$TIDEMARK_PREBUILT"/tidemark-loader_*.deb)
if command -v lintian >/dev/null; then
    lintian --fail-on error --suppress-tags bogus-mail-host-in-debian-changelog "$deb" "$loader"
fi
cp "$deb" "$loader" "$server/"

quietly deb-install "read the log" apt_get install "$server/${deb##*/}" "$server/${loader##*/}"
same "the state of $package" 'ii ' "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package")"
same "files that differ from what the packages say" "" "$(dpkg -V "$package" tidemark-loader)"
[ -s "/usr/share/doc/$package/copyright" ] || die "no copyright file" "look at scripts/deb.sh"

"$ROOT/scripts/pg.sh" start "$server/pg" >/dev/null
url=$("$ROOT/scripts/pg.sh" url "$server/pg")
ask() { "$PGBIN/psql" -X -A -t -q -v ON_ERROR_STOP=1 "$url" -c "$1"; }
ask 'CREATE EXTENSION tidemark'
same "the version" "$(crate_version)" "$(ask "SELECT extversion FROM pg_extension WHERE extname = 'tidemark'")"
same "sessions" "3" "$(ask "SELECT tidemark.session_count(t, '30 min')
                              FROM unnest(ARRAY['2026-09-01 10:00Z', '2026-09-01 10:29Z', '2026-09-01 11:00Z',
                                                '2026-09-02Z']::timestamptz[]) AS t")"
same "distinct values" "100" \
    "$(ask 'SELECT tidemark.approx_count_distinct(n % 100) FROM generate_series(1, 5000) AS n')"

same "the loader" "tidemark $(crate_version)" "$(/usr/bin/tidemark --version | head -n 1)"
same "a completion" "run" "$(bash -c '
    . /usr/share/bash-completion/completions/tidemark
    COMP_WORDS=(tidemark ru) COMP_CWORD=1
    _tidemark tidemark ru tidemark
    echo "${COMPREPLY[*]}"')"
[ -s /usr/share/man/man1/tidemark-run.1.gz ] || die "no manual pages" "look at scripts/deb.sh"
[ -s /etc/tidemark/tidemark.toml ] || die "no example configuration" "look at scripts/deb.sh"
grep -q '^ExecStart=/usr/bin/tidemark run' /usr/lib/systemd/system/tidemark.service ||
    die "the unit starts something else" "look at scripts/deb.sh"
ask 'CREATE DATABASE warehouse'
TIDEMARK_DATABASE_URL=${url%/*}/warehouse quietly deb-migrate "read the log" /usr/bin/tidemark migrate

quietly deb-remove "read the log" apt_get purge "$package" tidemark-loader
same "what is left after the removal" "$before" "$(traces)"
same "what is said without the files" 1 "$(ask 'SELECT 1')"
say "    $package and tidemark-loader: installed, used, removed"
