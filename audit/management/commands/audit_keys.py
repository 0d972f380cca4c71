"""Signing keys: `manage.py audit_keys`."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from audit import conf
from audit.format.keys import ED25519, HMAC_SHA256, KEY_ID, KeyringError, generate
from audit.format.signing import Keyring

NEXT = """\
That was the secret of {id}: it is shown this one time. Keep a copy apart from this machine and
from the bucket. To sign with it, put that line into AUDIT_SIGNING_KEYS (or the file that
AUDIT_SIGNING_KEYS_FILE names) before all others, leave the others there, so that what they signed
can be verified, and restart everything. {more}"""
MORE = {
    ED25519: "Then 'manage.py audit_keys public' prints what an auditor\nneeds.",
    HMAC_SHA256: "Whoever is to verify with it can also sign with it:\nprefer ed25519 "
    "where an auditor shall verify.",
}
WITHHELD = """\
# {id} is an HMAC key. It is secret: whoever can verify with it can also sign with it. Give the
# auditor that key itself in a safe way, as a line hmac-sha256:{id}:BASE64{until}, or, better,
# let an Ed25519 key sign as well: 'manage.py audit_keys generate' makes one."""


def key_id(text: str) -> str:
    """Return an id."""
    if not KEY_ID.fullmatch(text):
        raise ArgumentTypeError(
            "an id has 1 to 50 letters, digits, dots, underscores and hyphens, and begins with a "
            "letter or a digit"
        )
    return text


class Command(BaseCommand):
    """Makes keys, lists those that are set, and prints what an auditor needs of them.

    It asks neither the database nor the system checks: a key must be to be had before either is
    in order.
    """

    help = (
        "Make a signing key, list the keys that are set, or print what an auditor needs of them. "
        "Only 'generate' prints a secret. Exit codes: 0 done; 1 no key is set, or one cannot be "
        "used; 2 wrong usage."
    )
    requires_system_checks: list[str] = []  # noqa: RUF012  # as Django has it

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the documented options."""
        actions = parser.add_subparsers(dest="action", required=True)
        make = actions.add_parser("generate", help="make a key and print it, this one time")
        make.add_argument(
            "--algorithm",
            choices=[ED25519, HMAC_SHA256],
            default=ED25519,
            help="what it signs with (%(default)s)",
        )
        make.add_argument(
            "--id",
            type=key_id,
            default=None,
            help="its name in what it signs (made of its digest)",
        )
        show = actions.add_parser("list", help="list the keys that are set, without their secrets")
        show.add_argument("--json", action="store_true", help="print one JSON object")
        actions.add_parser("public", help="print a key file for an auditor")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        """Do what was asked for."""
        try:
            if action == "generate":
                self.generate(options["algorithm"], options["id"])
            elif action == "list":
                self.list(options["json"])
            else:
                self.public()
        except KeyringError as error:
            raise CommandError(str(error)) from None

    def generate(self, algorithm: str, name: str | None) -> None:
        """Make a key; alone on standard output, so that a script can take it."""
        key, text = generate(algorithm, name or "")
        self.stdout.write(text)
        self.stderr.write(NEXT.format(id=key.key_id, more=MORE[algorithm]))

    def list(self, as_json: bool) -> None:
        """Print each key's name, algorithm, role and end."""
        today = datetime.now(UTC).date().isoformat()
        found = [
            {**row, "ended": bool(row["until"] and row["until"] < today)}
            for row in keyring().describe()
        ]
        if as_json:
            self.stdout.write(json.dumps({"keys": found}))
            return
        for row in found:
            end = f"until {row['until']}" if row["until"] else "no end"
            ended = ", has come to its end" if row["ended"] else ""
            self.stdout.write(
                f"{row['id']:<24}  {row['algorithm']:<14}  {row['role']:<13}  {end}{ended}"
            )

    def public(self) -> None:
        """Print a key file, in which nothing is secret."""
        for line in key_file(keyring()):
            self.stdout.write(line)


def keyring() -> Keyring:
    """Return the keys that are set; raises KeyringError where there are none."""
    ring = conf.keyring()
    if not ring.known:
        raise KeyringError(
            "No signing key is set: 'manage.py audit_keys generate' makes one for "
            "AUDIT_SIGNING_KEYS."
        )
    return ring


def key_file(ring: Keyring) -> Iterator[str]:
    """Yield the lines of a key file."""
    day = datetime.now(UTC).date()
    yield f"# What verifies the log {conf.origin()!r} (its AUDIT_ORIGIN), as of {day}."
    for key in ring.known.values():
        until = f":until={key.until}" if key.until else ""
        yield key.public or WITHHELD.format(id=key.key_id, until=until)
