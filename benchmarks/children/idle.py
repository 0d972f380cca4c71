"""Set up Django, make a client of the bucket, and do nothing: how much memory that takes."""

from __future__ import annotations

import django

from benchmarks.children.report import peak_mb, say


def idle() -> None:
    """Open the storage as a run of the archive does."""
    from django.core.files.storage import storages  # noqa: PLC0415  # once Django is set up

    _ = storages["cold"].connection.meta.client  # type: ignore[attr-defined]  # django-storages has no type hints
    say(peak_mb=peak_mb())


if __name__ == "__main__":
    django.setup()
    idle()
