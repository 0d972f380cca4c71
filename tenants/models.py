"""Tenants: the platform's customers, as the sources of events know them."""

from __future__ import annotations

from typing import ClassVar

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"

validate_slug = RegexValidator(
    rf"\A{LABEL}\Z",
    "Use lower-case letters, digits and inner hyphens, at most 63.",
)
validate_subdomain = RegexValidator(
    rf"\A{LABEL}\Z",
    "Use one DNS label: lower-case letters, digits and inner hyphens, at most 63.",
)
validate_domain = RegexValidator(
    rf"\A(?=.{{1,253}}\Z){LABEL}(?:\.{LABEL})+\Z",
    "Use a domain name in lower case, such as example.eu.",
)


def unique_unless_empty(field: str) -> models.UniqueConstraint:
    """Return the constraint that no two tenants share a value that is set."""
    return models.UniqueConstraint(
        fields=[field],
        condition=~Q(**{field: ""}),
        name=f"tenant_{field}_unique",
        violation_error_message="Another tenant has this already.",
    )


class Tenant(models.Model):
    """One customer. Its slug is the tenant's name in events and never changes in them."""

    class Status(models.TextChoices):
        """Whether the platform serves the tenant; events are kept in every case."""

        ACTIVE = "active"
        SUSPENDED = "suspended"
        CLOSED = "closed"

    slug = models.CharField(
        max_length=63,
        unique=True,
        validators=[validate_slug],
        help_text="The tenant's name in events.",
    )
    name = models.CharField(max_length=200)
    subdomain = models.CharField(
        max_length=63,
        blank=True,
        validators=[validate_subdomain],
        help_text="The tenant's label under the platform's domain.",
    )
    mail_domain = models.CharField(
        max_length=253, blank=True, validators=[validate_domain], help_text="Such as example.eu."
    )
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.ACTIVE)
    authentik_brand = models.CharField(
        "Authentik brand", max_length=200, blank=True, help_text="The brand's id in Authentik."
    )
    stalwart_domain = models.CharField(
        "Stalwart domain", max_length=253, blank=True, help_text="The domain's id in Stalwart."
    )
    ocis_space = models.CharField(
        "OCIS space", max_length=200, blank=True, help_text="The space's id in OCIS."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        """What an event can be assigned by belongs to one tenant only."""

        ordering: ClassVar = ["slug"]
        constraints: ClassVar = [
            unique_unless_empty("subdomain"),
            unique_unless_empty("mail_domain"),
            unique_unless_empty("authentik_brand"),
            unique_unless_empty("stalwart_domain"),
            unique_unless_empty("ocis_space"),
        ]

    def __str__(self) -> str:
        """Return the name by which people know the tenant."""
        return self.name
