#!/usr/bin/env bash
# Lets a site run unattended for N minutes while its parts are killed, stopped and cut off.
#
#   ./scripts/soak.sh --minutes N [--seed S] [--keep]
#
# Sets up what it needs, and reads no .env. audit/tests/soak.py says what is done and what counts as
# a lie. Ends with "ok, N events", or with the lie, where the evidence is, and exit code 1.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

install_dev
exec .venv/bin/python -m audit.tests.soak "$@"
