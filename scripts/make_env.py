#!/usr/bin/env python3
"""Write an environment file for one machine, with fresh random secrets.

    make_env.py [FILE]          the default is `.env` beside manage.py
    make_env.py --add [FILE]    add what a file that an earlier version made has nothing of

Never changes what is there. Only its owner can read what it writes.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import secrets
import sys
from pathlib import Path

DEFAULT = Path(__file__).resolve().parent.parent / ".env"
TEMPLATE = """\
# Made by scripts/make_env.py for this machine alone. .env.example tells what else can be set.

DEBUG=false
ALLOWED_HOSTS=127.0.0.1,localhost
SECRET_KEY={secret_key}

# The name of this log and the key that signs what leaves it. Both belong to the log for good:
# with another origin or without the key, what is in the bucket cannot be verified.
AUDIT_ORIGIN={origin}
AUDIT_SIGNING_KEY={signing_key}

# Cold storage: the local S3 server that scripts/bootstrap.sh starts.
AUDIT_COLD_ENDPOINT=http://127.0.0.1:8333
AUDIT_COLD_REGION=us-east-1
AUDIT_COLD_BUCKET=dezky-audit
AUDIT_COLD_ACCESS_KEY={access_key}
AUDIT_COLD_SECRET_KEY={cold_secret_key}
"""
# By variable: what is added to a file without it.
PARTS = {
    "REDIS_URL": """
# Scheduled work: the local Redis server that scripts/bootstrap.sh starts.
REDIS_URL=redis://:{redis_password}@127.0.0.1:6390/0
""",
    "METRICS_TOKEN": """
# What asks for /metrics sends it: Authorization: Bearer …
METRICS_TOKEN={metrics_token}
""",
    "REDIS_PASSWORD": """
# For the servers of docker-compose.yml alone.
REDIS_PASSWORD={compose_redis_password}
SEAWEEDFS_ADMIN_PASSWORD={admin_password}
POSTGRES_PASSWORD={postgres_password}
""",
}


def main() -> int:
    """Write the file, or add to it; exit 1 where that cannot be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, nargs="?", default=DEFAULT)
    parser.add_argument("--add", action="store_true", help="add what the file has nothing of")
    arguments = parser.parse_args()
    path: Path = arguments.file
    try:
        return add(path) if arguments.add else make(path)
    except OSError as error:
        sys.stderr.write(f"{path} cannot be written: {error.strerror}.\n")
        return 1


def make(path: Path) -> int:
    """Write a new file."""
    try:
        # O_EXCL: also where two run at once, one file is written once.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.stderr.write(f"{path} is there already and stays as it is.\n")
        return 1
    with os.fdopen(descriptor, "w") as file:
        file.write(filled(TEMPLATE + "".join(PARTS.values())))
    return 0


def add(path: Path) -> int:
    """Add the parts whose variable is not set in the file."""
    there = path.read_text(encoding="utf-8")
    missing = [
        name
        for name in PARTS
        if not re.search(rf"^(export )?{name}(_FILE)?=", there, re.MULTILINE)
    ]
    if not missing:
        sys.stderr.write(f"{path} names {' and '.join(PARTS)} already: give them values there.\n")
        return 1
    with path.open("a") as file:
        file.write("" if there.endswith("\n") or not there else "\n")
        file.write(filled("".join(PARTS[name] for name in missing)))
    sys.stdout.write(f"Added to {path}: {', '.join(missing)}.\n")
    return 0


def filled(text: str) -> str:
    """Return it with fresh secrets. No value needs quoting, in a shell or in Docker Compose."""
    return text.format(
        secret_key=secrets.token_urlsafe(48),
        origin=f"dezky-local-{secrets.token_hex(4)}",
        signing_key=base64.b64encode(secrets.token_bytes(32)).decode(),
        access_key=f"dezky{secrets.token_hex(8)}",
        cold_secret_key=secrets.token_urlsafe(30),
        redis_password=secrets.token_urlsafe(30),
        compose_redis_password=secrets.token_urlsafe(30),
        admin_password=secrets.token_urlsafe(18),
        postgres_password=secrets.token_urlsafe(30),
        metrics_token=secrets.token_urlsafe(30),
    )


if __name__ == "__main__":
    sys.exit(main())
