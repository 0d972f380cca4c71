"""Nothing counts as stored because a PUT said so: what is in the bucket is looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .simulator import EVENTS, Site

Change = Callable[[Site, str, bytes], object]


def other_bytes(site: Site, key: str, data: bytes) -> None:
    """Store garbage of the same length under the same metadata: only the ETag tells."""
    stored = site.bucket.Object(key)
    stored.put(Body=b"x" * len(data), Metadata=stored.metadata, ContentType=stored.content_type)


def truncated(site: Site, key: str, data: bytes) -> None:
    site.bucket.Object(key).put(Body=data[:-1])


def gone(site: Site, key: str, data: bytes) -> None:
    site.bucket.Object(key).delete()


CHANGES: dict[str, tuple[Change, str]] = {
    "other bytes of the same length": (other_bytes, "holds other bytes than its name says"),
    "one byte short": (truncated, "bytes in the bucket"),
    "gone": (gone, "there is no such object"),
}


@pytest.mark.parametrize("end", [".jsonl.gz", ".manifest.json"])
@pytest.mark.parametrize("name", CHANGES)
def test_an_object_that_is_not_what_was_sent_is_never_purged(
    site: Site, name: str, end: str
) -> None:
    change, words = CHANGES[name]
    run = site.driver("archive", "--pause=step:manifest sent")
    run.wait_for("^paused")
    (key,) = (key for key in site.objects() if key.endswith(end))
    change(site, key, site.objects()[key])
    run.go_on()
    last = run.finish()[-1]

    assert last.startswith("outcome failed: ")
    assert words in last
    assert key in last
    assert len(site.hot_seqs()) == EVENTS
    assert [state for *_, state in site.batches()] == ["planned"]
    assert site.floor() == 0


def test_what_is_there_already_under_the_name_is_compared_not_trusted(site: Site) -> None:
    run = site.driver("archive", "--pause=step:jsonl named")
    run.wait_for("^paused")
    ((key,),) = site.rows("SELECT jsonl_key FROM audit_archivebatch")
    site.bucket.Object(key).put(Body=b"something else")
    run.go_on()
    last = run.finish()[-1]
    assert last.startswith(f"outcome failed: {key} has 14 bytes in the bucket")
    assert len(site.hot_seqs()) == EVENTS
    assert site.bucket.Object(key).get()["Body"].read() == b"something else"


def test_what_is_there_already_and_right_is_taken(site: Site) -> None:
    """The answer to a PUT got lost, and the SDK or the next run meets its own success."""
    before = site.template.records
    run = site.driver("archive", "--pause=step:jsonl sent")
    run.wait_for("^paused")
    run.kill()
    stored = {key: item.last_modified for key, item in site.listing().items()}
    assert site.archive()["outcome"] == "archived"
    listing = site.listing()
    assert {key: listing[key].last_modified for key in stored} == stored
    assert site.read_log().records == before
