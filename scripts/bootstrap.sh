#!/usr/bin/env bash
# From a clean clone to a console with events in it: installs into .venv, makes .env, starts a
# local S3 server, fills an empty log with demo events, archives what is due, serves the console
# on 127.0.0.1 until Ctrl-C. No root, no Docker. Doing it again is safe and takes seconds.
#
#   ./scripts/bootstrap.sh [--no-serve]
#
# PORT is the console's port (8000). All state is in var/; scripts/reset.sh destroys it.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
umask 077

usage() {
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' scripts/bootstrap.sh
}

serve=true
case "${1-}" in
    '') ;;
    --no-serve) serve=false ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
esac
port=${PORT:-8000}
[[ $port =~ ^[0-9]{1,5}$ && $port -ge 1 && $port -le 65535 ]] ||
    fail "PORT is '$port': set it to a number from 1 to 65535, or leave it away for 8000."
env_file=${DEZKY_ENV_FILE-.env}

started=$(now)
scratch=$(mktemp -d)
child= # what runs now
s3=    # the local S3 server

# What is started dies with this script, in whatever way that ends.
tied=()
if command -v setpriv >/dev/null; then tied=(setpriv --pdeathsig TERM); fi

# shellcheck disable=SC2329  # the trap calls it
cleanup() {
    local code=$?
    trap '' INT TERM HUP
    stop "$child"
    stop "$s3"
    rm -rf "$scratch"
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# shellcheck disable=SC2329  # cleanup calls it
stop() {
    [[ -n $1 ]] || return 0
    kill -TERM "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# run COMMAND…: in the background, so that a signal to this script is acted on at once.
run() {
    local code=0
    "${tied[@]}" "$@" 9>&- &
    child=$!
    wait "$child" || code=$?
    child=
    return "$code"
}

# step LABEL COMMAND…: one line with what it took; its output is shown if it fails.
step() {
    local label=$1 from code=0
    shift
    from=$(now)
    printf '  %-44s' "$label"
    run "$@" >"$scratch/output" 2>&1 || code=$?
    if [[ $code -ne 0 ]]; then
        printf 'failed\n\n'
        cat "$scratch/output" >&2
        exit "$code"
    fi
    printf '%10s\n' "$(seconds_since "$from")"
}

# show LABEL COMMAND…: the same, and its output is what it is for.
show() {
    local label=$1 from code=0
    shift
    from=$(now)
    printf '\n%s\n' "$label"
    run "$@" || code=$?
    [[ $code -eq 0 ]] || fail "$label: failed with exit code $code, see above."
    printf 'took %s\n' "$(seconds_since "$from")"
}

# One at a time in this folder ----------------------------------------------------------------

python=$(find_python)
mkdir -p var
exec 9>>var/bootstrap.lock
if ! flock --nonblock 9; then
    read -r holder other_port <var/bootstrap.lock || true
    fail "Another ./scripts/bootstrap.sh of this folder is running (pid $holder, console port" \
        "$other_port): stop it first, with Ctrl-C where it runs or 'kill $holder'."
fi
printf '%s %s\n' "$$" "$port" >var/bootstrap.lock
if $serve && ! holder=$("$python" scripts/holders.py port "$port" 2>&1); then
    fail "$holder The console needs it: end that, or choose another: PORT=8001 $0"
fi

# Install and configure -----------------------------------------------------------------------

printf 'Dezky audit\n'
if holds runtime; then
    printf '  %-44s%10s\n' 'Packages in .venv' 'there'
else
    if ! venv_is_ours; then
        rm -rf .venv
        step 'Virtual environment .venv' "$python" -m venv .venv
    fi
    rm -f .venv/installed
    step 'Packages into .venv' "${pip_install[@]}" -r requirements.txt -r requirements-local.txt
    stamp runtime
fi
if [[ -n $env_file && ! -e $env_file ]]; then
    step "Fresh secrets into $env_file" "$python" scripts/make_env.py "$env_file"
fi

# Django reads the settings, so that what it will use is what is started.
read_settings='
from django.conf import settings
for name in ("ENDPOINT", "BUCKET", "ACCESS_KEY", "SECRET_KEY"):
    print(getattr(settings, "AUDIT_COLD_" + name))
'
cold_settings=$(DJANGO_SETTINGS_MODULE=dezky.settings .venv/bin/python -c "$read_settings" \
    2>"$scratch/output") || fail "The settings cannot be read: $(tail -n 1 "$scratch/output")"
mapfile -t cold <<<"$cold_settings"
endpoint=${cold[0]}

# Cold storage --------------------------------------------------------------------------------

if [[ $endpoint =~ ^http://(127\.0\.0\.1|localhost)(:([0-9]+))?/?$ ]]; then
    s3_port=${BASH_REMATCH[3]:-80}
    from=$(now)
    printf '  %-44s' "S3 server at 127.0.0.1:$s3_port"
    AUDIT_COLD_ACCESS_KEY=${cold[2]} AUDIT_COLD_SECRET_KEY=${cold[3]} \
        "${tied[@]}" .venv/bin/python scripts/local_s3.py --with-parent --dir var/s3 \
        --port "$s3_port" --bucket "${cold[1]}" >"$scratch/s3" 2>"$scratch/output" 9>&- &
    s3=$!
    until grep -q '^ready ' "$scratch/s3"; do
        if ! kill -0 "$s3" 2>/dev/null; then
            code=0
            wait "$s3" || code=$?
            printf 'failed\n\n'
            cat "$scratch/output" >&2
            if [[ $code -eq 3 ]]; then
                fail "AUDIT_COLD_ENDPOINT names that port: end what holds it, or set another port" \
                    "in ${env_file:-the environment}."
            fi
            exit 1
        fi
        sleep 0.05
    done
    printf '%10s\n' "$(seconds_since "$from")"
else
    printf '  %-44s%10s\n' "S3 service at ${endpoint:-(AUDIT_COLD_ENDPOINT is not set)}" 'yours'
fi

# Database, account, events, archive ----------------------------------------------------------

step 'Database tables' .venv/bin/python manage.py migrate --no-input --verbosity 0
step 'Static files' .venv/bin/python manage.py collectstatic --no-input --verbosity 0
show 'Operator account' .venv/bin/python scripts/make_operator.py
show 'Demo events' .venv/bin/python manage.py demo_events --count 20000 --days 180 --if-empty
show 'Archive' .venv/bin/python manage.py archive_now

printf '\nDone in %s.\n' "$(seconds_since "$started")"
$serve || exit 0

# Console -------------------------------------------------------------------------------------

"${tied[@]}" .venv/bin/python -m gunicorn dezky.wsgi --bind "127.0.0.1:$port" \
    --worker-class gthread --workers 2 --threads 4 --graceful-timeout 5 --log-level warning --no-control-socket \
    9>&- &
child=$!
answer=
until [[ -n $answer ]]; do
    kill -0 "$child" 2>/dev/null || fail 'The console did not start, see above.'
    sleep 0.1
    answer=$(
        # The shell says itself that nobody listens yet, before a redirection of the same command.
        exec 2>/dev/null
        {
            printf 'GET /admin/login/ HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3
            IFS= read -r -t 10 line <&3 && printf '%s' "$line"
        } 3<>"/dev/tcp/127.0.0.1/$port" || true
    )
done
printf 'Console: http://127.0.0.1:%s/admin/ (Ctrl-C stops it)\n' "$port"
wait -n "$child" ${s3:+"$s3"} || true
if [[ -n $s3 ]] && ! kill -0 "$s3" 2>/dev/null; then
    cat "$scratch/output" >&2
    fail 'The local S3 server ended: see var/s3/weed.log.'
fi
fail 'The console ended by itself, see above.'
