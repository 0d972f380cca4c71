"""Tokens of the HTTP interface in the console: to look at, and to revoke."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from audit.api.models import Token

from .readonly import ReadOnlyAdmin, moment


@admin.register(Token)
class TokenAdmin(ReadOnlyAdmin):
    """Nobody makes or changes a token here; deleting one revokes it. Its digest stays unseen."""

    actions = ()
    list_display = ("number", "user", "made", "ends")
    list_select_related = ("user",)
    search_fields = ("user__username",)
    search_help_text = "A part of a user's name."
    fields = ("number", "user", "made", "ends")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever has Django's permission for it."""
        return bool(super(ReadOnlyAdmin, self).has_delete_permission(request, obj))

    @admin.display(description="token", ordering="id")
    def number(self, token: Token) -> str:
        """Return the token's number."""
        return f"token {token.pk}"

    @admin.display(description="made (UTC)", ordering="created")
    def made(self, token: Token) -> str:
        """Return when it was made."""
        return moment(token.created)

    @admin.display(description="good until (UTC)", ordering="expiry")
    def ends(self, token: Token) -> str:
        """Return when it expires."""
        return moment(token.expiry)
