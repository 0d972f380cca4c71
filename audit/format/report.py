"""What a verification finds: problems, each with its place, and what they come to.

"Wrong" differs from "could not look": what is there and is not what was signed is *tampered*,
what must be there and is not is a *gap*, what could not be looked at is *unverifiable*.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from .errors import AuditError, GapError, TamperedError

MOST_PROBLEMS = 1_000  # that are told one by one
MOST_NOTES = 1_000


class Kind(StrEnum):
    """What a problem is; the worst comes first."""

    TAMPERED = "tampered"
    GAP = "gap"
    UNVERIFIABLE = "unverifiable"

    @classmethod
    def of(cls, error: AuditError) -> Kind:
        """Return what an error is."""
        if isinstance(error, TamperedError):
            return cls.TAMPERED
        return cls.GAP if isinstance(error, GapError) else cls.UNVERIFIABLE


def printable(text: str) -> str:
    """Return a text that does nothing to a terminal; what is not printable is escaped.

    Names of files and parts of unsigned documents are whatever somebody wanted them to be.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


RESTORE = "Restore it from a copy of the bucket."
EVIDENCE = "Keep it as evidence, and restore it from a copy of the bucket."
OK = "ok"
EXIT_CODES = {OK: 0, Kind.TAMPERED: 1, Kind.UNVERIFIABLE: 2, Kind.GAP: 3}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do: one line."""

    kind: Kind
    message: str
    seq: int | None = None
    object: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the documented form."""
        return {
            "kind": self.kind.value,
            "seq": self.seq,
            "object": self.object,
            "message": self.message,
        }


@dataclass
class Tally:
    """How many of some things there are, and how many of them are good."""

    good: int = 0
    total: int = 0

    def __str__(self) -> str:
        """Return both, as a person reads them."""
        return f"{self.good:,}/{self.total:,}"

    def to_json(self) -> dict[str, int]:
        """Return the documented form."""
        return {"valid": self.good, "total": self.total}


@dataclass
class Report:
    """What was looked at, and what was found.

    `events` were verified, from `first_seq` to `last_seq`; `root` is the tree's over all of them,
    as hex, where it could be computed. `notes` are no problems; `more_notes` were only counted.
    """

    events: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    root: str | None = None
    manifests: Tally = field(default_factory=Tally)
    objects: Tally = field(default_factory=Tally)
    checkpoints: Tally = field(default_factory=Tally)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[Kind, int] = field(default_factory=dict)
    more_notes: int = 0

    def add(self, problem: Problem) -> None:
        """Add a problem; past the first thousand they are only counted."""
        self.counts[problem.kind] = self.counts.get(problem.kind, 0) + 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(replace(problem, message=printable(problem.message)))

    def tell(
        self, kind: Kind, message: str, seq: int | None = None, object_: str | None = None
    ) -> None:
        """Add a problem."""
        self.add(Problem(kind, message, seq, object_))

    def note(self, text: str) -> None:
        """Add a note; past the first thousand they are only counted."""
        if len(self.notes) < MOST_NOTES:
            self.notes.append(printable(text))
        else:
            self.more_notes += 1

    def covers(self, first: int, last: int) -> None:
        """Note that these events were verified."""
        self.events += last - first + 1
        self.first_seq = first if self.first_seq is None else min(first, self.first_seq)
        self.last_seq = last if self.last_seq is None else max(last, self.last_seq)

    @property
    def outcome(self) -> str:
        """Return what it comes to: the worst kind of problem, or ok."""
        return next((kind.value for kind in Kind if self.counts.get(kind)), OK)

    @property
    def exit_code(self) -> int:
        """Return the exit code of its outcome."""
        return EXIT_CODES[self.outcome]

    def in_order(self) -> list[Problem]:
        """Return the problems in the order of the log, those without a seq first."""
        return sorted(self.problems, key=lambda problem: problem.seq or 0)

    @property
    def untold(self) -> int:
        """Return how many problems were only counted."""
        return sum(self.counts.values()) - len(self.problems)

    def lines(self) -> list[str]:
        """Return what a person reads: each problem, each note, and what was looked at."""
        lines = [
            f"{problem.kind}: {f'{problem.object}: ' if problem.object else ''}{problem.message}"
            for problem in self.in_order()
        ]
        if self.untold:
            lines.append(f"and {self.untold:,} problems more")
        lines += [f"note: {note}" for note in self.notes]
        if self.more_notes:
            lines.append(f"and {self.more_notes:,} notes more")
        seqs = f"seq {self.first_seq:,}–{self.last_seq:,}, " if self.last_seq else ""
        gaps = self.counts.get(Kind.GAP, 0)
        lines.append(
            f"{self.manifests} manifests valid, {self.objects} objects valid, "
            f"{self.checkpoints} checkpoints valid, {self.events:,} events, {seqs}"
            f"root {self.root or 'not known'}, {gaps:,} gap{'' if gaps == 1 else 's'}"
        )
        return [printable(line) for line in lines]

    def to_json(self) -> dict[str, Any]:
        """Return the documented form."""
        return {
            "outcome": self.outcome,
            "events": self.events,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "root": self.root,
            "manifests": self.manifests.to_json(),
            "objects": self.objects.to_json(),
            "checkpoints": self.checkpoints.to_json(),
            "problems": [problem.to_json() for problem in self.in_order()],
            "more_problems": self.untold,
            "notes": self.notes,
            "more_notes": self.more_notes,
        }
