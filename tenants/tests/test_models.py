"""A tenant's names are valid, and what an event can be assigned by belongs to one tenant only."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from tenants.models import Tenant

pytestmark = pytest.mark.django_db

UNIQUE_UNLESS_EMPTY = [
    "subdomain",
    "mail_domain",
    "authentik_brand",
    "stalwart_domain",
    "ocis_space",
]


def tenant(**members: Any) -> Tenant:
    return Tenant(**{"slug": "alder", "name": "Alder GmbH", **members})


def errors_of(made: Tenant) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        made.full_clean()
    return caught.value.message_dict


def test_a_slug_and_a_name_are_enough() -> None:
    made = tenant()
    made.full_clean()
    made.save()
    assert made.status == "active"
    assert str(made) == "Alder GmbH"


@pytest.mark.parametrize("slug", ["a", "7", "a-b", "alder-2", "x" * 63, "a--b"])
def test_a_slug_is_a_dns_label(slug: str) -> None:
    tenant(slug=slug).full_clean()


@pytest.mark.parametrize(
    "slug", ["", "-a", "a-", "-", "A", "ä", "a_b", "a.b", "a b", "a\n", "x" * 64, "a\0", "a/b"]
)
@pytest.mark.parametrize("name", ["slug", "subdomain"])
def test_what_is_no_dns_label_is_neither_slug_nor_subdomain(name: str, slug: str) -> None:
    if name == "subdomain" and slug == "":
        tenant(subdomain="").full_clean()  # it need not have one
        return
    assert list(errors_of(tenant(**{name: slug}))) == [name]


@pytest.mark.parametrize(
    "domain", ["alder.example", "mail.alder-2.example", "xn--lder-koa.example", "a.b", "1.example"]
)
def test_a_mail_domain_is_a_domain_name(domain: str) -> None:
    tenant(mail_domain=domain).full_clean()


@pytest.mark.parametrize(
    "domain",
    [
        "example",
        "Alder.example",
        ".example",
        "alder.example.",
        "a..example",
        "-a.example",
        "a-.example",
        "ada@alder.example",
        "alder example",
        "älder.example",
        "alder.example\n",
        f"{'x' * 64}.example",
        f"{'x.' * 125}example",
    ],
)
def test_what_is_no_domain_name_is_no_mail_domain(domain: str) -> None:
    assert list(errors_of(tenant(mail_domain=domain))) == ["mail_domain"]


@pytest.mark.parametrize("status", Tenant.Status.values)
def test_a_tenant_is_active_suspended_or_closed(status: str) -> None:
    tenant(status=status).full_clean()
    assert Tenant.Status.values == ["active", "suspended", "closed"]


def test_there_is_no_other_status() -> None:
    assert list(errors_of(tenant(status="deleted"))) == ["status"]


def test_a_slug_belongs_to_one_tenant() -> None:
    tenant().save()
    assert list(errors_of(tenant(name="Other"))) == ["slug"]
    with pytest.raises(IntegrityError), transaction.atomic():
        tenant(name="Other").save()


@pytest.mark.parametrize("name", UNIQUE_UNLESS_EMPTY)
def test_what_an_event_can_be_assigned_by_belongs_to_one_tenant(name: str) -> None:
    value = "birch.example" if name == "mail_domain" else "birch"
    tenant(**{name: value}).save()
    other = tenant(slug="other", **{name: value})
    assert errors_of(other) == {"__all__": ["Another tenant has this already."]}
    with pytest.raises(IntegrityError), transaction.atomic():
        other.save()


def test_any_number_of_tenants_may_have_none_of_them() -> None:
    for slug in ("alder", "birch", "cedar"):
        made = tenant(slug=slug)
        made.full_clean()
        made.save()
    assert Tenant.objects.count() == 3


def test_tenants_come_in_the_order_of_their_slugs() -> None:
    for slug in ("cedar", "alder", "birch"):
        tenant(slug=slug).save()
    assert [made.slug for made in Tenant.objects.all()] == ["alder", "birch", "cedar"]
