"""Who may speak to the HTTP interface."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission

if TYPE_CHECKING:  # the views ask for what is here while they are imported
    from rest_framework.request import Request
    from rest_framework.views import APIView

# As REST_KNOX in the settings makes them: prefix, 256 random bits.
TOKEN = re.compile(rb"dezky_[0-9a-f]{64}")


class BearerAuthentication(TokenAuthentication):  # type: ignore[misc]  # knox has no type hints
    """A token that is there, has not expired, and belongs to an active user."""

    def authenticate_credentials(self, token: bytes) -> Any:
        """Return (user, token); raises AuthenticationFailed.

        What does not look like a token is refused before the database is asked.
        """
        if not TOKEN.fullmatch(token):
            raise AuthenticationFailed("Invalid token.")
        return super().authenticate_credentials(token)


class Holds(BasePermission):
    """Whoever has one of these permissions, and nobody else."""

    permissions: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """Say what is needed."""
        return f"This needs the permission {' or '.join(map(repr, self.permissions))}."

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Say whether the user has one of them."""
        user: Any = request.user
        return bool(user and user.is_authenticated and any(map(user.has_perm, self.permissions)))


class MayRunArchive(Holds):
    """Whoever may run the archive may look at it."""

    permissions = ("audit.run_archive",)


class MayVerify(Holds):
    """Whoever may verify the log."""

    permissions = ("audit.verify_log",)


class MayReadVerifications(Holds):
    """How a verification ended is for whoever works with the log."""

    permissions = (*MayVerify.permissions, *MayRunArchive.permissions)
