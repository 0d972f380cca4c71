#!/usr/bin/env bash
# From a clean clone to the whole stack with events in it: installs into .venv, makes .env, starts
# local S3 and Redis servers, fills an empty log with demo events, archives what is due; then runs
# console, workers, schedule, Redis and S3 on 127.0.0.1 until Ctrl-C. No root, no Docker. Doing it
# again is safe and takes seconds.
#
#   ./scripts/bootstrap.sh [--no-serve]
#
# PORT is the console's port (8000); those of S3 and Redis are in .env, in AUDIT_COLD_ENDPOINT and
# REDIS_URL. All state is in var/; scripts/reset.sh destroys it. Ctrl-C ends what is in a worker's
# hands after a few seconds; it is taken up again at the next start.
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
s3=    # the local S3 server, until the supervisor has one
redis= # and the local Redis server

# What is started dies with this script, in whatever way that ends.
tied=()
if command -v setpriv >/dev/null; then tied=(setpriv --pdeathsig TERM); fi

# shellcheck disable=SC2329  # the trap calls it
cleanup() {
    local code=$?
    trap '' INT TERM HUP
    stop "$child"
    stop "$redis"
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
    # What one that was killed has started is on its way out for some seconds.
    if kill -0 "$holder" 2>/dev/null || ! flock --wait 15 9; then
        fail "Another ./scripts/bootstrap.sh of this folder is running (pid $holder, console port" \
            "$other_port): stop it first, with Ctrl-C where it runs or 'kill $holder'."
    fi
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
from urllib.parse import unquote, urlsplit
from django.conf import settings
for name in ("ENDPOINT", "BUCKET", "ACCESS_KEY", "SECRET_KEY"):
    print(getattr(settings, "AUDIT_COLD_" + name))
url = urlsplit(settings.REDIS_URL)
print(f"{url.scheme}://{url.hostname or str()}:{url.port or 6379}" if settings.REDIS_URL else "")
print(unquote(url.password or ""))
'
cold_and_redis() {
    DJANGO_SETTINGS_MODULE=dezky.settings .venv/bin/python -c "$read_settings" 2>"$scratch/output" ||
        fail "The settings cannot be read: $(tail -n 1 "$scratch/output")"
}
read_values=$(cold_and_redis && printf .)
mapfile -t values <<<"${read_values%.}"
if [[ -z ${values[4]} ]]; then
    # Earlier versions made none.
    [[ -n $env_file ]] ||
        fail 'REDIS_URL is not set: for a local Redis server,' \
            'set it to redis://:PASSWORD@127.0.0.1:6390/0.'
    step "Redis added to $env_file" "$python" scripts/make_env.py --add "$env_file"
    read_values=$(cold_and_redis && printf .)
    mapfile -t values <<<"${read_values%.}"
    [[ -n ${values[4]} ]] ||
        fail "REDIS_URL is empty in $env_file: remove that line, and a local Redis server is added."
fi
endpoint=${values[0]}
redis_url=${values[4]}
loopback='^[a-z]+://(127\.0\.0\.1|localhost)(:([0-9]+))?/?$'

# S3 and Redis --------------------------------------------------------------------------------

# await_server LABEL PID OUTPUT SETTING: wait for its `ready`; its error is shown if it fails.
await_server() {
    local from code=0
    from=$(now)
    printf '  %-44s' "$1"
    until grep -q '^ready ' "$3"; do
        if ! kill -0 "$2" 2>/dev/null; then
            wait "$2" || code=$?
            printf 'failed\n\n'
            cat "$3" >&2
            if [[ $code -eq 3 ]]; then
                fail "$4 names that port: end what holds it, or set another port" \
                    "in ${env_file:-the environment}."
            fi
            exit 1
        fi
        sleep 0.05
    done
    printf '%10s\n' "$(seconds_since "$from")"
}

# The secrets have names of their own here: under those of the settings they would be the
# settings' own for everything that is started.
export LOCAL_S3_BUCKET=${values[1]} LOCAL_S3_ACCESS_KEY=${values[2]} \
    LOCAL_S3_SECRET_KEY=${values[3]} LOCAL_REDIS_PASSWORD=${values[5]}
processes=(web worker worker-short beat)
if [[ $endpoint =~ $loopback && $endpoint == http:* ]]; then
    export LOCAL_S3_PORT=${BASH_REMATCH[3]:-80}
    processes=(s3 "${processes[@]}")
    AUDIT_COLD_ACCESS_KEY=$LOCAL_S3_ACCESS_KEY AUDIT_COLD_SECRET_KEY=$LOCAL_S3_SECRET_KEY \
        "${tied[@]}" .venv/bin/python scripts/local_s3.py --with-parent --dir var/s3 \
        --port "$LOCAL_S3_PORT" --bucket "$LOCAL_S3_BUCKET" >"$scratch/s3" 2>&1 9>&- &
    s3=$!
    await_server "S3 server at 127.0.0.1:$LOCAL_S3_PORT" "$s3" "$scratch/s3" AUDIT_COLD_ENDPOINT
else
    printf '  %-44s%10s\n' "S3 service at ${endpoint:-(AUDIT_COLD_ENDPOINT is not set)}" 'yours'
fi
if [[ $redis_url =~ $loopback && $redis_url == redis:* ]]; then
    export LOCAL_REDIS_PORT=${BASH_REMATCH[3]}
    processes=(redis "${processes[@]}")
    REDIS_PASSWORD=$LOCAL_REDIS_PASSWORD \
        "${tied[@]}" .venv/bin/python scripts/local_redis.py --with-parent --dir var/redis \
        --port "$LOCAL_REDIS_PORT" >"$scratch/redis" 2>&1 9>&- &
    redis=$!
    await_server "Redis server at 127.0.0.1:$LOCAL_REDIS_PORT" "$redis" "$scratch/redis" REDIS_URL
else
    printf '  %-44s%10s\n' "Redis server at ${redis_url#*://}" 'yours'
fi

# Database, account, events, archive ----------------------------------------------------------

step 'Database tables' .venv/bin/python manage.py migrate --no-input --verbosity 0
step 'Static files' .venv/bin/python manage.py collectstatic --no-input --verbosity 0
show 'Operator account' .venv/bin/python scripts/make_operator.py
show 'Demo events' .venv/bin/python manage.py demo_events --count 20000 --days 180 --if-empty
show 'Archive' .venv/bin/python manage.py archive_now

printf '\nDone in %s.\n' "$(seconds_since "$started")"
$serve || exit 0

# The stack -----------------------------------------------------------------------------------

# They start again under the supervisor, with the others.
stop "$redis"
stop "$s3"
redis=
s3=

rm -rf var/run
mkdir -p var/run/metrics
# honcho reads no .env: its reader would take other values from it than the settings' does.
(
    # A terminal that closes tells us, and we it.
    trap '' HUP
    export DEZKY_SUPERVISOR=$BASHPID DEZKY_STACK=var/run CONSOLE_PORT=$port \
        PYTHONUNBUFFERED=1
    exec "${tied[@]}" .venv/bin/python -m honcho --env /dev/null --procfile scripts/Procfile \
        --app-root . start "${processes[@]}"
) &
child=$!

# ended: say which of them ended by itself, if one did, and end.
ended() {
    local code=0
    wait "$child" || code=$?
    child=
    fail "$(cat var/run/ended 2>/dev/null || printf 'The supervisor ended (exit code %s)' "$code"):" \
        "the rest was stopped, see above."
}

answer=
until [[ -n $answer ]]; do
    kill -0 "$child" 2>/dev/null || ended
    sleep 0.1
    answer=$(
        # The shell says itself that nobody listens yet, before a redirection of the same command.
        exec 2>/dev/null
        {
            printf 'GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3
            IFS= read -r -t 10 line <&3 && printf '%s' "$line"
        } 3<>"/dev/tcp/127.0.0.1/$port" || true
    )
done
printf 'Console: http://127.0.0.1:%s/admin/ (Ctrl-C stops it all)\n' "$port"
ended
