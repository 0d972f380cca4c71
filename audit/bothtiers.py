"""Events that are in both tiers: an object, held against the rows that hot still has of it.

It is sent to other processes, with a store and what is to be read.
"""

from __future__ import annotations

from functools import partial

from django.db import DatabaseError

from . import log
from .canonical import read_many
from .format.errors import RecordError
from .format.inspect import Inspected, Job, inspect
from .format.report import Kind, Problem
from .format.store import Store
from .hotwalk import changed_columns


def inspect_both(store: Store, job: Job) -> Inspected:
    """Read an object as a whole, and hold the hot rows of its range that are there against it."""
    manifest = job.manifest
    try:
        oldest = log.oldest_seq(above=manifest.start_seq - 1)
        if oldest is None or oldest > manifest.end_seq:
            return inspect(store, job)
        return inspect(store, job, partial(_differences, job.name))
    except DatabaseError as error:
        found = inspect(store, job)
        why = f"{log.explain(error)} It was not compared with the rows that hot may have of it."
        problem = Problem(Kind.UNVERIFIABLE, why, manifest.start_seq, job.name)
        return Inspected(found.good, (*found.problems, problem), found.lost)


def _differences(name: str, first: int, records: list[bytes], links: list[bytes]) -> list[Problem]:
    """Return where hot rows differ from what cold has; the columns, too."""
    found = []
    for chunk in log.read_whole(first, first + len(records) - 1):
        for row, members in zip(chunk, read_many([row.record for row in chunk]), strict=True):
            nth, what = row.seq - first, ""
            if type(row.seq) is not int or (row.record, row.link) != (records[nth], links[nth]):
                what = "differs between the hot database and the object"
            elif not isinstance(members, RecordError) and (wrong := changed_columns(row, members)):
                what = f"has a column in hot that its record does not say: {', '.join(wrong)}"
            if what:
                text = f"Seq {row.seq:,} {what}. Keep both, and find out which was changed."
                found.append(Problem(Kind.TAMPERED, text, int(row.seq), name))
    return found
