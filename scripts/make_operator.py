#!/usr/bin/env python3
"""Make the account `operator`, if there is none, and print its password this one time."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import django

NAME = "operator"
# 90 bits, in letters that are not taken for one another.
LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
GROUPS, GROUP = 3, 6


def main() -> int:
    """Make the account, or say that it is there."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dezky.settings")
    django.setup()
    # Models can only be imported once the settings are in force.
    from django.contrib.auth.models import User

    if User.objects.filter(username=NAME).exists():
        sys.stdout.write(
            f"'{NAME}' is there already; a new password: manage.py changepassword {NAME}\n"
        )
        return 0
    password = "-".join(
        "".join(secrets.choice(LETTERS) for _ in range(GROUP)) for _ in range(GROUPS)
    )
    User.objects.create_superuser(NAME, email="", password=password)
    sys.stdout.write(f"'{NAME}' with password {password} (it is not shown again)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
