"""Looks at a deployment from this process, as the schedule's tasks do, and says what is open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from audit import alarms, conditions, safetynet
from audit.alarms import Look
from audit.models import Alarm

from .attacks import Scene, inside
from .simulator import Site

ALL = (*conditions.LOOKS, *safetynet.LOOKS)
TOGETHER = Alarm.SAFETY_NET  # the subject of what may end any look
NOWHERE = "http://127.0.0.1:9"

Open = set[tuple[str, str]]


class Place(Protocol):
    """A deployment that this process can be."""

    def inside(self) -> AbstractContextManager[None]:
        """Be it."""


class Watched:
    """A site whose log is in one database, seen from this process."""

    def __init__(self, site: Site, blocker: Any) -> None:
        self.site, self._blocker = site, blocker
        self.settings: dict[str, Any] = {"AUDIT_MIN_FREE_MB": 1}
        self.endpoint = ""

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be this deployment."""
        place = self.site.database, self.site.prefix, self.endpoint
        with inside(self._blocker, *place, **self.settings):
            yield


def look(place: Place, *looks: Look) -> Open:
    """Look; return kind and subject of each alarm that is open then."""
    with place.inside():
        alarms.go(TOGETHER, looks or ALL)
        return opened()


def opened() -> Open:
    return {(row.kind, row.subject) for row in alarms.open_alarms()}


def message(place: Place, kind: str, subject: str) -> str:
    """Return what an open alarm says, in whole sentences."""
    with place.inside():
        text = alarms.open_alarms().get(kind=kind, subject=subject).message
    assert text.endswith("."), text
    return text


def only(looks: Sequence[Look], *names: str) -> list[Look]:
    """Return the looks of these names."""
    found = [one for one in looks if one.name in names]
    assert len(found) == len(names)
    return found


def quiet(scene: Scene) -> Scene:
    """Return a scene with room on its disk, so that nothing is wrong with it."""
    scene.settings["AUDIT_MIN_FREE_MB"] = 1
    return scene
