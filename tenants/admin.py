"""Tenants in the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.http import HttpRequest

from .models import Tenant

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Tenant]
else:  # generic for the type checker only
    ModelAdmin = admin.ModelAdmin


@admin.register(Tenant)
class TenantAdmin(ModelAdmin):
    """Tenants are the one thing that operators edit here."""

    list_display = ("slug", "name", "subdomain", "mail_domain", "status")
    list_filter = ("status", "created_at")
    search_fields = (
        "slug",
        "name",
        "subdomain",
        "mail_domain",
        "authentik_brand",
        "stalwart_domain",
        "ocis_space",
    )
    fieldsets = (
        (None, {"fields": ("slug", "name", "status")}),
        ("Addresses", {"fields": ("subdomain", "mail_domain")}),
        ("Known elsewhere as", {"fields": ("authentik_brand", "stalwart_domain", "ocis_space")}),
        ("Record", {"fields": ("created_at", "updated_at")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Tenant | None = None) -> list[str]:
        """Fix the slug once it is given: events carry it, and they never change."""
        return ["created_at", "updated_at", *(["slug"] if obj else [])]
