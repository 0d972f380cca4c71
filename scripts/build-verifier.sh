#!/usr/bin/env bash
# Makes the offline verifier one file, which any Python from 3.11 on runs with nothing installed:
#
#   ./scripts/build-verifier.sh [FILE]      by default dist/dezky-verify.pyz
#
# Prints where it is and its SHA-256. The same sources make the same bytes, whoever builds them:
# nothing is compressed, times and modes are fixed, names are in order. Needs nothing of .venv.
set -euo pipefail

target=$(realpath -m -- "${1:-"$(dirname "${BASH_SOURCE[0]}")/../dist/dezky-verify.pyz"}")
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 or newer is needed: name one by PYTHON=…"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The zip that `python -m zipapp` would make, which keeps the times of files and has them in the
# order in which the folder happens to list them.
"$python" -I - "$scratch/verifier" <<'MAKE'
import sys
from pathlib import Path
from zipfile import ZipFile, ZipInfo

MAIN = b"""import sys

if sys.version_info < (3, 11):  # here, since an old one cannot even read what follows
    sys.stderr.write("unverifiable: this needs Python 3.11 or newer: call it by another one.\\n")
    sys.exit(2)

from audit.offline import main

if __name__ == "__main__":
    sys.exit(main())
"""
sources = [Path("audit/__init__.py"), Path("audit/offline.py"), *Path("audit/format").glob("*.py")]
files = {path.as_posix(): path.read_bytes() for path in sources} | {"__main__.py": MAIN}
with open(sys.argv[1], "wb") as file:
    file.write(b"#!/usr/bin/env python3\n")
    with ZipFile(file, "w") as archive:
        for name, data in sorted(files.items()):
            entry = ZipInfo(name, (2000, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, whatever it is made on
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
MAKE
mkdir -p "$(dirname "$target")"
install -m 755 "$scratch/verifier" "$target"

printf '%s\n' "$target"
printf 'SHA-256 %s\n' "$(sha256sum "$target" | cut -d ' ' -f 1)"
