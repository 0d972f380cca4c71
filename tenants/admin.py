"""Tenants in the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

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
    readonly_fields = ("created_at", "updated_at")
    fieldsets = (
        (None, {"fields": ("slug", "name", "status")}),
        ("Addresses", {"fields": ("subdomain", "mail_domain")}),
        ("Known elsewhere as", {"fields": ("authentik_brand", "stalwart_domain", "ocis_space")}),
        ("Record", {"fields": ("created_at", "updated_at")}),
    )
