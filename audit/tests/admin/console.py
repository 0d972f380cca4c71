"""The console as a browser sees it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse


@dataclass
class Page(HTMLParser):
    """What a page shows, and what in it the browser would run or style inline."""

    html: str
    inline: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._within = ""
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.inline += [
            f"{name} of {tag}" for name in given if name.startswith("on") or name == "style"
        ]
        for name in ("href", "src", "action"):
            if (given.get(name) or "").lower().startswith("javascript:"):
                self.inline.append(f"{name} of {tag}")
        if tag in {"script", "style"}:
            self._within = "" if "src" in given else tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._within:
            self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within and data.strip():
            self.inline.append(f"{self._within}: {data.strip()[:60]}")
        elif not self._within:
            self.text += data


@dataclass(frozen=True)
class Console:
    """A client that is logged in, over HTTPS."""

    client: Client

    def page(self, url: str, **query: str) -> Page:
        """Return a page that must load, and run nothing inline."""
        answer = self.client.get(url, query, secure=True)
        assert answer.status_code == 200, (answer.status_code, answer.headers.get("Location"))
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        page = Page(answer.content.decode())
        assert page.inline == []
        return page

    def status(self, method: str, url: str, **data: Any) -> int:
        """Return the status code of a request."""
        answer = getattr(self.client, method)(url, data, secure=True)
        return int(answer.status_code)


def changelist(model: str) -> str:
    """Return the URL of a model's list."""
    return reverse(f"admin:audit_{model}_changelist")


def page_of(model: str, pk: Any) -> str:
    """Return the URL of a row's page."""
    return reverse(f"admin:audit_{model}_change", args=[pk])


def nothing_can_be_changed(console: Console, model: str, pk: int) -> None:
    """Try every way that the console has to change a row; each must be forbidden."""
    row = page_of(model, pk)
    delete = row.replace("/change/", "/delete/")
    for url in (reverse(f"admin:audit_{model}_add"), delete):
        assert console.status("get", url) == 403
        assert console.status("post", url, post="yes") == 403
    assert console.status("post", row, seq="1", record="x", state="purged", _save="Save") == 403
    for action in ("delete_selected", "anything"):
        console.status("post", changelist(model), action=action, _selected_action=[str(pk)])
        console.status(
            "post", changelist(model), action=action, _selected_action=[str(pk)], post="yes"
        )
    html = console.page(changelist(model)).html + console.page(row).html
    for control in (f"/{model}/add/", "/delete/", "delete_selected", 'name="_save"'):
        assert control not in html
    offered = set(re.findall(r'<option value="([a-z_]+)">', html))
    assert offered <= ({"archive_now"} if model == "archivebatch" else set())


def staff(client: Client, *permissions: str) -> Console:
    """Log in as a member of staff who has these permissions and no others."""
    user = User.objects.create_user("reader", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    assert user.user_permissions.count() == len(permissions)
    client.force_login(user)
    return Console(client)
