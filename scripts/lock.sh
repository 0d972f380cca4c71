#!/usr/bin/env bash
# Writes the lock files at the top level from requirements/*.in.
#
#   ./scripts/lock.sh             keeps the pinned versions that still fit the sources
#   ./scripts/lock.sh --upgrade   takes the newest versions that the sources allow
#
# Extras stay in the locks: else pip asks for a package with its extra at the newest version, which is
# not the pinned one as soon as there is a newer.
# The locks name no package index: they install from whichever one pip is set up for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools="$(mktemp -d)"
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check 'uv>=0.9,<1'

lock() {
    local source=$1 target=$2
    shift 2
    "$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-strip-extras --no-emit-index-url --custom-compile-command ./scripts/lock.sh \
        "$source" --output-file "$target" "$@"
}

# The development lock comes first and the other two are parts of it, so all three agree.
lock requirements/dev.in requirements-dev.txt "$@"
lock requirements/runtime.in requirements.txt --constraints requirements-dev.txt
lock requirements/local.in requirements-local.txt --constraints requirements-dev.txt
