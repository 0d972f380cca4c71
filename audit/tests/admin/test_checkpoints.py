"""Checkpoints in the console."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from audit import checkpoints, log
from audit.models import Checkpoint
from audit.tests.factories import drafts

from .console import Console, changelist, nothing_can_be_changed, page_of, staff

pytestmark = pytest.mark.django_db(transaction=True)
LIST = changelist("checkpoint")
HOSTILE = b'<script>alert("x")</script>\xff'


@pytest.fixture
def signed(cold: str) -> tuple[Checkpoint, Checkpoint]:
    """Sign twice; the second one waits for the bucket."""
    log.append(drafts(3))
    checkpoints.make()
    log.append(drafts(2))
    checkpoints.make(ask_bucket=False)
    second, first = Checkpoint.objects.all()
    return first, second


def test_an_empty_list_loads(console: Console) -> None:
    assert "0 checkpoints" in console.page(LIST).text


def test_they_come_newest_first_and_say_whether_they_wait(
    console: Console, signed: tuple[Checkpoint, Checkpoint]
) -> None:
    page = console.page(LIST)
    assert page.html.index("pending: waits for the bucket") < page.html.index(">published<")
    for row in signed:
        assert row.sha256[:16] in page.text
    for query in (
        {"q": signed[1].sha256},
        {"q": signed[1].root[:20]},
        {"state__exact": "pending"},
    ):
        assert "1 checkpoint\n" in console.page(LIST, **query).text


def test_a_page_shows_what_was_signed_as_it_is(
    console: Console, signed: tuple[Checkpoint, Checkpoint], cold: str
) -> None:
    for row in signed:
        text = console.page(page_of("checkpoint", row.pk)).text
        document = log.as_bytes(row.document).decode()
        key = f"{cold}/checkpoints/{row.index:012d}-{row.seq:020d}-{row.sha256[:16]}.json"
        for part in (document, key, row.sha256, row.link, row.root, f"seq {row.seq}"):
            assert part in text
    assert "pending: waits for the bucket" in text


def test_what_somebody_wrote_there_is_shown_as_it_is(
    console: Console, signed: tuple[Checkpoint, Checkpoint]
) -> None:
    Checkpoint.objects.update(document=HOSTILE, link=HOSTILE[:20].decode(), frontier="x")
    page = console.page(page_of("checkpoint", 1))  # which fails on anything inline
    assert '<script>alert("x")</script>\\xff' in page.text
    assert "2 checkpoints" in console.page(LIST).text


@pytest.mark.usefixtures("signed")
def test_nobody_can_add_change_or_delete_one(console: Console) -> None:
    before = list(Checkpoint.objects.values())
    nothing_can_be_changed(console, "checkpoint", 1)
    assert list(Checkpoint.objects.values()) == before


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize("may", [False, True])
def test_staff_sees_them_with_the_permission_only(client: Client, may: bool) -> None:
    permissions: list[Any] = ["view_checkpoint", "change_checkpoint"] if may else []
    reader = staff(client, *permissions)
    for url in (LIST, page_of("checkpoint", 1)):
        assert reader.status("get", url) == (200 if may else 403)
