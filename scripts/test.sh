#!/usr/bin/env bash
# Sets up what it needs and runs every check and the tests; stops at the first that fails.
#
#   ./scripts/test.sh           all but the tests marked as slow
#   ./scripts/test.sh --all     every test, and how much they cover is measured: what CI runs
#   ./scripts/test.sh PYTEST ARGUMENTS
#                               only those tests
#
# Reads no .env: the checks run with settings made up for them.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

started=$(now)
heading=
scratch=$(mktemp -d)

finish() {
    local code=$?
    rm -rf "$scratch"
    if [[ $code -eq 0 ]]; then
        printf '\nAll checks and tests passed in %s.\n' "$(seconds_since "$started")"
    else
        printf '\nFAILED: %s (exit code %s, after %s)\n' "$heading" "$code" \
            "$(seconds_since "$started")" >&2
    fi
}
trap finish EXIT

# check COMMAND…: under a heading that names it.
check() {
    heading="$*"
    printf '\n== %s\n' "$heading"
    "$@"
}

# production MANAGE.PY ARGUMENTS: as on a server of production, with nothing real in it.
production() {
    env SECRET_KEY="$(random_base64 48)" AUDIT_SIGNING_KEY="$(random_base64 32)" \
        DEBUG=false ALLOWED_HOSTS=audit.example.eu AUDIT_ORIGIN=audit.example.eu \
        AUDIT_COLD_ENDPOINT=https://s3.example.eu AUDIT_COLD_BUCKET=audit \
        REDIS_URL=redis://redis.example.eu:6379/0 AUDIT_COLD_ACCESS_KEY=key AUDIT_COLD_SECRET_KEY="$(random_base64 32)" \
        DATABASE_URL="sqlite:///$scratch/checks.sqlite3" \
        python manage.py "$@"
}

# random_base64 N: N random bytes in base64.
random_base64() {
    head -c "$1" /dev/urandom | base64 -w 0
}

heading='installing requirements-dev.txt'
install_dev
export PATH="$PWD/.venv/bin:$PATH" DEZKY_ENV_FILE=

check ruff check
check ruff format --check
check mypy
check lint-imports --no-logo
check shellcheck -x scripts/*.sh docs/systemd/*.sh .ci/run
check production makemigrations --check --dry-run
check production check --deploy --fail-level WARNING
check python scripts/check_links.py
if [[ $# -eq 0 ]]; then
    check python -m pytest -n 3 -m 'not slow'
elif [[ $* == --all ]]; then
    check python -m pytest -n 3 --cov --cov-branch
else
    check python -m pytest "$@"
fi
