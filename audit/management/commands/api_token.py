"""Tokens for programs: `manage.py api_token`."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.utils import timezone
from knox.settings import knox_settings

from audit import log
from audit.api.models import Token

MAX_DAYS = 3_650
PERMISSION = "audit.run_archive"


def days(text: str) -> int:
    """Return a number of days."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_DAYS:
        raise ArgumentTypeError(f"{text} is not a whole number from 1 to {MAX_DAYS:,}")
    return int(text)


class Command(BaseCommand):
    """Issues, lists and revokes the bearer tokens of the HTTP interface."""

    help = "Issue, list or revoke bearer tokens for the HTTP interface."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the documented options."""
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="make a token and print it, this one time")
        create.add_argument("username", metavar="USERNAME", help="under whose name it asks")
        create.add_argument(
            "--days",
            type=days,
            default=knox_settings.TOKEN_TTL.days,
            metavar="N",
            help="how long it is good for (%(default)s)",
        )
        actions.add_parser("list", help="list the tokens, without their secrets")
        revoke = actions.add_parser("revoke", help="end a token at once")
        revoke.add_argument("id", metavar="ID", help="its number in the list")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        """Do what was asked for."""
        try:
            if action == "create":
                self.create(options["username"], options["days"])
            elif action == "list":
                self.list()
            else:
                self.revoke(options["id"])
        except DatabaseError as error:
            raise CommandError(log.explain(error)) from error

    def create(self, username: str, lifetime: int) -> None:
        """Make a token; alone on standard output, so that a script can take it."""
        user = get_user_model().objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no user '{username}': make the account first.")
        if not user.is_active:
            raise CommandError(f"The user '{username}' is not active: no token was made.")
        token, secret = Token.objects.create(user, expiry=timedelta(days=lifetime))
        self.stdout.write(secret)
        self.stderr.write(f"{token}, good until {moment(token)}. It is not shown again.")
        if not user.has_perm(PERMISSION):
            self.stderr.write(
                f"'{username}' has no permission '{PERMISSION}' yet: give it in the console, or "
                "the token opens nothing."
            )

    def list(self) -> None:
        """Print each token's number, user, making and end."""
        now = timezone.now()
        for token in Token.objects.select_related("user").order_by("id"):
            ended = "  expired" if token.expiry and token.expiry <= now else ""
            self.stdout.write(
                f"{token.pk:>4}  {token.user.get_username():<24}  made "
                f"{token.created:%Y-%m-%d %H:%M}  good until {moment(token)}{ended}"
            )
        if not Token.objects.exists():
            self.stdout.write("There are no tokens.")

    def revoke(self, number: str) -> None:
        """Delete a token."""
        token = Token.objects.filter(pk=number).first() if number.isdecimal() else None
        if token is None:
            raise CommandError(f"There is no token {number}: see 'manage.py api_token list'.")
        text = str(token)
        token.delete()
        self.stdout.write(f"Revoked {text}. It opens nothing from now on.")


def moment(token: Token) -> str:
    """Return when a token ends, in UTC."""
    return f"{token.expiry:%Y-%m-%d %H:%M} UTC" if token.expiry else "it is revoked"
