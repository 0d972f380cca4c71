"""Tenants in the console: the one thing that operators edit there."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from tenants.models import Tenant

pytestmark = pytest.mark.django_db
LIST = reverse("admin:tenants_tenant_changelist")
ADD = reverse("admin:tenants_tenant_add")
FORM = {"slug": "alder", "name": "Alder GmbH", "status": "active"}


@pytest.fixture(autouse=True)
def plain_static_files(settings: Any) -> None:
    """Name static files as they are: the tests collect none."""
    backend = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": backend}


@pytest.fixture
def operator(client: Client) -> Client:
    """Return a client that is logged in as a superuser."""
    client.force_login(User.objects.create_superuser("operator"))
    return client


def change(tenant: Tenant) -> str:
    return reverse("admin:tenants_tenant_change", args=[tenant.pk])


def page(client: Client, url: str, **query: str) -> str:
    answer = client.get(url, query, secure=True)
    assert answer.status_code == 200
    return answer.content.decode()


def test_a_tenant_can_be_added(operator: Client) -> None:
    answer = operator.post(ADD, FORM, secure=True)
    assert answer.status_code == 302
    assert Tenant.objects.get().slug == "alder"


def test_a_wrong_value_is_refused_with_what_is_expected(operator: Client) -> None:
    answer = operator.post(ADD, {**FORM, "slug": "Alder GmbH"}, secure=True)
    assert answer.status_code == 200
    assert "Use lower-case letters, digits and inner hyphens" in answer.content.decode()
    assert not Tenant.objects.exists()


def test_what_another_tenant_has_is_refused(operator: Client) -> None:
    Tenant.objects.create(slug="birch", name="Birch", mail_domain="birch.example")
    answer = operator.post(ADD, {**FORM, "mail_domain": "birch.example"}, secure=True)
    assert "Another tenant has this already." in answer.content.decode()
    assert Tenant.objects.count() == 1


def test_a_tenant_can_be_changed(operator: Client) -> None:
    tenant = Tenant.objects.create(**FORM)
    answer = operator.post(change(tenant), {**FORM, "status": "suspended"}, secure=True)
    assert answer.status_code == 302
    tenant.refresh_from_db()
    assert tenant.status == "suspended"


def test_a_slug_never_changes(operator: Client) -> None:
    tenant = Tenant.objects.create(**FORM)
    assert 'name="slug"' not in page(operator, change(tenant))
    operator.post(change(tenant), {**FORM, "slug": "other"}, secure=True)
    tenant.refresh_from_db()
    assert tenant.slug == "alder"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slug", "alder-7"),
        ("name", "Alder GmbH"),
        ("subdomain", "sub-7"),
        ("mail_domain", "alder.example"),
        ("authentik_brand", "brand-7"),
        ("stalwart_domain", "domain-7"),
        ("ocis_space", "space-7"),
    ],
)
def test_a_tenant_is_found_by_everything_it_is_known_by(
    operator: Client, name: str, value: str
) -> None:
    Tenant.objects.create(**{"slug": "found", "name": "Found", name: value})
    Tenant.objects.create(slug="beside", name="Beside")
    text = page(operator, LIST, q=value[:6])
    assert "1 tenant" in text
    assert "Beside" not in text


def test_tenants_are_filtered_by_status(operator: Client) -> None:
    Tenant.objects.create(slug="alder", name="Alder", status="closed")
    Tenant.objects.create(slug="birch", name="Birch")
    assert 'href="?status__exact=closed"' in page(operator, LIST)
    text = page(operator, LIST, status__exact="closed")
    assert "Alder" in text
    assert "Birch" not in text


def test_without_the_permission_tenants_can_be_seen_at_most(client: Client) -> None:
    tenant = Tenant.objects.create(**FORM)
    user = User.objects.create_user("reader", is_staff=True)
    client.force_login(user)
    assert client.get(LIST, secure=True).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_tenant"))
    assert "Alder GmbH" in page(client, LIST)
    assert client.post(ADD, FORM, secure=True).status_code == 403
    assert client.post(change(tenant), {**FORM, "name": "X"}, secure=True).status_code == 403
    tenant.refresh_from_db()
    assert tenant.name == "Alder GmbH"
