#!/usr/bin/env bash
# Kills, stalls and faults at random while four processes ingest, until the first lie.
#
#   ./scripts/torture.sh --kills N [--seed S] [--split] [--keep]
#
# Sets up what it needs, and reads no .env. audit/tests/torture.py says what is done and what counts
# as a lie. Ends with "ok: …", or with the lie, where the evidence is, and exit code 1.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

install_dev
exec .venv/bin/python -m audit.tests.torture "$@"
