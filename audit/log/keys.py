"""What was seen, forgotten when nobody will deliver it any more."""

from __future__ import annotations

from collections.abc import Iterator

from audit.models import EventKey

from .database import write_transaction

FORGET_CHUNK = 10_000  # keys that are looked at in one transaction


def forget_keys(last: int) -> Iterator[int]:
    """Delete the keys of seqs up to `last`, chunk by chunk; yields how many went in each.

    In the order of the keys, once through all of them: an index on seq would cost every append,
    and this is done once in a while.
    """
    after = b""
    while True:
        keys = EventKey.objects.filter(key__gt=after).order_by("key").values_list("key", flat=True)
        chunk = list(keys[:FORGET_CHUNK])
        if not chunk:
            return
        begin, after = after, bytes(chunk[-1])
        old = EventKey.objects.filter(key__gt=begin, key__lte=after, seq__lte=last)
        if old.exists():
            with write_transaction():
                gone, _ = old.delete()
            yield gone
