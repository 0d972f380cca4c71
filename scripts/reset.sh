#!/usr/bin/env bash
# Destroys the local data: database, objects of the local S3 server, queues of the local Redis server,
# logs. Says what it destroyed.
#
#   ./scripts/reset.sh [--yes] [--env]
#
# --yes does not ask. --env destroys .env as well, with the key that signed what was archived:
# only where nothing outside of this folder was signed with it. .venv stays.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

usage() {
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' scripts/reset.sh
}

ask=true
targets=(var)
while [[ $# -gt 0 ]]; do
    case $1 in
        --yes) ask=false ;;
        --env) targets+=(.env) ;;
        -h | --help) usage && exit ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done

# measure PATH: "N files, SIZE".
measure() {
    printf '%s files, %s' "$(find "$1" -type f | wc -l)" "$(du -sh "$1" | cut -f 1)"
}

there=()
for target in "${targets[@]}"; do
    [[ ! -e $target ]] || there+=("$target")
done
if [[ ${#there[@]} -eq 0 ]]; then
    printf 'Nothing to destroy: there is no %s here.\n' "${targets[*]}"
    exit
fi

python=$(find_python)
if [[ -e var ]]; then
    # Held until the end: no bootstrap can start over what is being removed.
    exec 9>>var/bootstrap.lock
    if ! flock --nonblock 9; then
        read -r holder port <var/bootstrap.lock || true
        fail "./scripts/bootstrap.sh is running (pid $holder, console port $port):" \
            "stop it first, with Ctrl-C where it runs or 'kill $holder'."
    fi
    "$python" scripts/holders.py files var 9>&- || fail 'Stop what uses them first.'
fi

endpoint=$(sed -n 's/^AUDIT_COLD_ENDPOINT=//p' .env 2>/dev/null | tail -n 1 || true)
printf 'This destroys, for good:\n'
for target in "${there[@]}"; do
    printf '  %-8s%s\n' "$target" "$(measure "$target")"
done
if [[ -n $endpoint && ! $endpoint =~ ^http://(127\.0\.0\.1|localhost)([:/]|$) ]]; then
    printf 'Objects at %s stay. A new log needs another AUDIT_ORIGIN and AUDIT_COLD_PREFIX.\n' \
        "$endpoint"
fi
if $ask; then
    answer=
    read -r -p "Type 'yes' to go on: " answer || true
    [[ $answer == yes ]] || fail 'Nothing was destroyed.'
fi
for target in "${there[@]}"; do
    what=$(measure "$target")
    rm -rf -- "${target:?}"
    printf 'Destroyed %s (%s).\n' "$target" "$what"
done
