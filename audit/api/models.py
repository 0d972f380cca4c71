"""Tokens for programs that speak to the HTTP interface."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from knox.models import AbstractAuthToken
from knox.settings import CONSTANTS


class Token(AbstractAuthToken):  # type: ignore[misc]  # knox has no type hints
    """A token of a user, of which only the SHA-512 is kept; deleting it revokes it.

    knox would take the digest for the primary key and for the name, and the console would then
    show it in addresses and lists. Here a token is known by a number.
    """

    digest = models.CharField(max_length=CONSTANTS.DIGEST_LENGTH, unique=True, editable=False)

    class Meta:
        """Newest first."""

        verbose_name = "API token"
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        """Return the number and the user; nothing of the token."""
        return f"token {self.pk} of {self.user}"
