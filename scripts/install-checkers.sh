#!/usr/bin/env bash
# Installs the programs from Debian that a few tests use where they are there, and are skipped
# without: promtool (the alert rules) and docker-compose (the compose file). Needs root and apt.
#
#   ./scripts/install-checkers.sh
#
# Changes nothing where both are there. Of the package prometheus only promtool is taken, into
# /usr/local/bin: no server is installed.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

missing=()
for program in promtool docker-compose; do
    command -v "$program" >/dev/null || missing+=("$program")
done
if [[ ${#missing[@]} -eq 0 ]]; then exit; fi
[[ $(id -u) -eq 0 ]] || fail "${missing[*]}: not there, and only root can install them."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chmod 777 "$scratch" # apt downloads as a user of its own
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
for program in "${missing[@]}"; do
    case $program in
        promtool)
            (cd "$scratch" && apt-get download -qq prometheus)
            dpkg -x "$scratch"/prometheus_*.deb "$scratch/prometheus"
            install -m 755 "$scratch/prometheus/usr/bin/promtool" /usr/local/bin/promtool
            ;;
        docker-compose) apt-get install -qq -y --no-install-recommends docker-compose >/dev/null ;;
    esac
    printf 'installed %s\n' "$program"
done
