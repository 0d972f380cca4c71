#!/usr/bin/env python3
"""Write an environment file for one machine, with fresh random secrets.

    make_env.py [FILE]      the default is `.env` beside manage.py

Never changes a file that is there. Only its owner can read what it writes.
"""

from __future__ import annotations

import argparse
import base64
import os
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


def main() -> int:
    """Write the file; exit 1 where there is one already."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, nargs="?", default=DEFAULT)
    path: Path = parser.parse_args().file
    try:
        # O_EXCL: also where two run at once, one file is written once.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.stderr.write(f"{path} is there already and stays as it is.\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{path} cannot be written: {error.strerror}.\n")
        return 1
    with os.fdopen(descriptor, "w") as file:
        file.write(content())
    return 0


def content() -> str:
    """Return the file's text. No value needs quoting, in a shell or in Docker Compose."""
    return TEMPLATE.format(
        secret_key=secrets.token_urlsafe(48),
        origin=f"dezky-local-{secrets.token_hex(4)}",
        signing_key=base64.b64encode(secrets.token_bytes(32)).decode(),
        access_key=f"dezky{secrets.token_hex(8)}",
        cold_secret_key=secrets.token_urlsafe(30),
    )


if __name__ == "__main__":
    sys.exit(main())
