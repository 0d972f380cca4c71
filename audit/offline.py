"""Verify a copy of the bucket with nothing else: `python -m audit.offline DIR --key FILE`.

Needs the standard library alone, and the package `cryptography` where an Ed25519 key is given.
`scripts/build-verifier.sh` makes one file of it. docs/verify.md is its page.

Exit code 1 says that somebody has changed the log. So nothing else may end in it: whatever goes
wrong in here, or in how it was called, ends in 2.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import stat
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, NoReturn

if sys.version_info < (3, 11):  # noqa: UP036  # an auditor's may be older
    sys.stderr.write("unverifiable: this needs Python 3.11 or newer: call it by another one.\n")
    sys.exit(2)

from audit.format.checkpoint import MAX_CHECKPOINT_BYTES, Checkpoint
from audit.format.errors import AuditError, GapError, TamperedError, UnverifiableError
from audit.format.examine import examine
from audit.format.frames import FRAME_BYTES, GZIP_WINDOW
from audit.format.keys import ED25519, HMAC_SHA256
from audit.format.names import CHECKPOINTS, CheckpointName, ObjectName
from audit.format.names import Kind as ObjectKind
from audit.format.record import MAX_BYTES, parse
from audit.format.report import EXIT_CODES, RESTORE, Kind, Report, printable
from audit.format.signing import Keyring
from audit.format.walk import Walk

UNVERIFIABLE = EXIT_CODES[Kind.UNVERIFIABLE]
MAX_KEY_BYTES = 64 * 1024
MANY_OBJECTS = 8  # from which on several processes are worth their start
MOST_PROCESSES = 64
# No wait for somebody who writes into a named pipe; and bytes as they are, on Windows too.
OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class UsageError(AuditError):
    """The command line does not say what is to be done, or there is nothing to do it with."""


@dataclass(frozen=True)
class Folder:
    """A `Store`: a folder that has a log's objects right in it, as a prefix of the bucket has.

    Where a copy lies on a disk says nothing about where in the bucket it lay: `prefix` is None.
    """

    path: Path
    prefix: str | None = None

    @classmethod
    def find(cls, path: Path, *, here: bool = False) -> Folder:
        """Return the folder with the log in it: the one given, or one below, as keys are paths.

        `here`: the one given, whatever is below it. Raises UsageError where there is none, or more
        than one: names alone make no log, and one that is planted must not hide another.
        """
        if not path.is_dir():
            raise UsageError(f"{path} is no folder: give the one that the bucket was copied to.")
        if here:
            return cls(path)
        found: list[Path] = []
        for folder, folders, files in os.walk(path, onerror=_unreadable):
            points = os.listdir(Path(folder, CHECKPOINTS)) if CHECKPOINTS in folders else []  # noqa: PTH208  # names alone
            if any(map(_is_manifest, files)) or any(map(CheckpointName.parse, points)):
                found.append(Path(folder))
                folders[:] = [name for name in folders if name != CHECKPOINTS]
        if not found:
            raise UsageError(
                f"{path} has no manifest and no checkpoint in it: give the folder that the bucket "
                "was copied to."
            )
        if len(found) > 1:
            raise UsageError(
                f"{path} has {len(found):,} logs in it: give one of "
                f"{', '.join(map(str, sorted(found)[:5]))}, with --here."
            )
        return cls(found[0])

    def names(self) -> list[str]:
        """Return the names of all files, and of folders where a file should be."""
        names: list[str] = []
        for folder, folders, files in os.walk(self.path, onerror=_unreadable):
            below = Path(folder).relative_to(self.path).as_posix()
            found = [*files, *filter(ObjectName.parse, folders)]
            if below == CHECKPOINTS:
                found += filter(CheckpointName.parse, folders)
            if below == "." and Path(folder, CHECKPOINTS).is_symlink():
                names += [f"{CHECKPOINTS}/{name}" for name in os.listdir(self.path / CHECKPOINTS)]  # noqa: PTH208  # names alone
            names += [name if below == "." else f"{below}/{name}" for name in found]
        return sorted(names)

    def size(self, name: str) -> int:
        """Return a file's length in bytes."""
        with _looking():
            found = (self.path / name).stat()
            _require_file(found)
            return found.st_size

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return a whole small file."""
        with _looking(), self.opened(name) as stream:
            data = stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise TamperedError(f"larger than {max_bytes:,} bytes")
        return data

    def opened(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file."""
        with _looking():
            descriptor = os.open(self.path / name, OPEN)
            try:
                _require_file(os.fstat(descriptor))
                return os.fdopen(descriptor, "rb")
            except BaseException:
                os.close(descriptor)
                raise


def _is_manifest(name: str) -> bool:
    found = ObjectName.parse(name)
    return found is not None and found.kind is ObjectKind.MANIFEST


def _unreadable(error: OSError) -> NoReturn:
    raise UnverifiableError(f"The folder {error.filename} cannot be read ({error.strerror}).")


def _require_file(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise GapError("is missing, a folder has its name")
    if not stat.S_ISREG(found.st_mode):
        raise UnverifiableError("is neither a file nor a link to one")


@contextmanager
def _looking() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise GapError("is missing") from None
    except OSError as error:
        raise UnverifiableError(f"cannot be read ({error.strerror})") from None


def verify(
    folder: Folder,
    keyring: Keyring,
    *,
    kept: bytes | None = None,
    processes: int = 1,
    progress: Callable[[int], None] = lambda events: None,
) -> tuple[Report, Walk]:
    """Verify all that is in a folder; `kept` is a checkpoint that was kept elsewhere.

    Raises UsageError where that is none, UnverifiableError where the folder cannot be listed,
    WorkerError where one of several processes has died.
    """
    checkpoint = None if kept is None else _kept_checkpoint(kept, keyring)
    report = Report()
    walk = Walk(folder, keyring, report)
    walk.read_checkpoints()
    if kept is not None and checkpoint is not None:
        _hold_against(checkpoint, sha256(kept).hexdigest(), walk)
    examine(walk, walk.batches(), processes=processes, progress=progress)
    walk.foreign_objects()
    _tell_removed(walk)
    if not walk.points and not report.manifests.good and not report.problems:
        report.tell(
            Kind.UNVERIFIABLE,
            f"Nothing in {folder.path} is signed, so nothing was verified. Give the folder that "
            "has the log's manifests and checkpoints.",
        )
    if walk.place.tree is not None:
        report.root = walk.place.tree.root().hex()
    return report, walk


def _tell_removed(walk: Walk) -> None:
    """Say of objects that follow the last manifest one after another that manifests are gone.

    A run sends an object, its manifest, and only then the next object: one that was stopped leaves
    one object without a manifest, and never two that follow each other.
    """
    signed = max((point.checkpoint.seq for point in walk.points), default=0)
    following: list[ObjectName] = []
    for name in walk.unclaimed:
        after = following[-1].end_seq if following else walk.place.seq
        if name.start_seq == after + 1 and _begins_there(walk, name):
            following.append(name)
    for name in following[:-1]:
        if name.end_seq <= signed:
            walk.report.manifests.total += 1
            walk.report.tell(
                Kind.GAP,
                f"Batch {name.start_seq:,}–{name.end_seq:,}: its manifest is missing, its object "
                f"and the next one's are there. {RESTORE}",
                name.start_seq,
                str(name),
            )


def _begins_there(walk: Walk, name: ObjectName) -> bool:
    """Say whether an object begins with the record of its first seq: anybody can make a name."""
    try:
        with walk.store.opened(str(name)) as stream:
            data = stream.read(FRAME_BYTES)
        text = zlib.decompressobj(GZIP_WINDOW).decompress(data, MAX_BYTES + 1)
        return parse(text.partition(b"\n")[0]).get("seq") == name.start_seq
    except (AuditError, OSError, zlib.error):
        return False


def _kept_checkpoint(kept: bytes, keyring: Keyring) -> Checkpoint:
    try:
        return Checkpoint.from_bytes(kept, keyring)
    except AuditError as error:
        raise UsageError(
            f"The checkpoint that was given is not good: {str(error).rstrip('.')}. Give one as it "
            "was kept, byte for byte, and its key; the log was not looked at."
        ) from None


def _hold_against(kept: Checkpoint, digest: str, walk: Walk) -> None:
    """Hold the folder's checkpoints against one that was kept elsewhere."""
    report = walk.report
    if walk.origin is None:
        walk.origin = kept.origin
    if kept.origin != walk.origin:
        report.tell(
            Kind.TAMPERED,
            f"The checkpoint that was given is of the log '{kept.origin}', this one is "
            f"'{walk.origin}'. If you did not mix them up, somebody has put another log here.",
        )
        return
    newest = walk.points[-1].checkpoint if walk.points else None
    if newest is None or newest.index < kept.index:
        here = f"checkpoint {newest.index:,}, seq {newest.seq:,}" if newest else "none"
        report.tell(
            Kind.GAP,
            f"Checkpoint {kept.index:,}, seq {kept.seq:,}, which was given, is newer than the "
            f"newest here ({here}): the end of the log was cut off, or this copy was made before "
            "it. Copy the bucket again; if it is still not there, restore it from another copy.",
            kept.seq,
        )
    for point in walk.points:
        if point.checkpoint.index == kept.index and point.sha256 != digest:
            report.tell(
                Kind.TAMPERED,
                f"Checkpoint {kept.index:,} here is not the one that was given: somebody who has "
                "a key made history anew. Keep both.",
                kept.seq,
                f"{CHECKPOINTS}/{point.name}",
            )
    walk.kept = kept


def summary(report: Report, walk: Walk) -> list[str]:
    """Return what a person reads: what was found, what this cannot show, the verdict."""
    lines = report.lines()
    lines += [f"not shown by this: {limit}" for limit in limits(walk)]
    lines.append(f"{report.outcome}: log '{walk.origin or ''}', {report.events:,} events")
    return [printable(line) for line in lines]


def limits(walk: Walk) -> list[str]:
    """Return what cannot be known from a copy of the bucket alone, each a sentence."""
    found = []
    if walk.by_hmac_alone:
        found.append(
            f"Who signed {walk.by_hmac_alone:,} of the manifests and checkpoints. Whoever holds "
            "an HMAC key, you included, can make its signatures: ask for a log that is signed by "
            "Ed25519 as well, and for its public key."
        )
    newest = walk.points[-1].checkpoint if walk.points else None
    if newest is None:
        found.append(
            "Whether newer batches were removed: there is no checkpoint, and only one that is "
            "kept elsewhere shows it (--checkpoint)."
        )
    elif newest.seq > walk.place.seq:
        found.append(
            f"Seq {walk.place.seq + 1:,}–{newest.seq:,}, for which checkpoints are signed: they "
            "are not in this copy. They are still in the hot database, or their batches were "
            "removed: ask for verify_audit there."
        )
    if walk.unclaimed:
        seqs = ", ".join(f"{name.start_seq:,}–{name.end_seq:,}" for name in walk.unclaimed[:5])
        found.append(
            f"What the last objects are that no manifest names (seq {seqs}): a run that was "
            "stopped leaves such, and so does somebody who removes manifests. Ask for "
            "verify_audit where the log is kept."
        )
    if newest is not None and walk.kept is None:
        found.append(
            f"Whether anything after checkpoint {newest.index:,} (seq {newest.seq:,}, "
            f"{newest.at}) was cut off: only a newer checkpoint that is kept elsewhere shows it "
            "(--checkpoint)."
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, verify, print, return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in given
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for a terminal that has no dashes
    try:
        report, walk = _verify(_parser().parse_args(given))
        if as_json:
            answer = {**report.to_json(), "origin": walk.origin, "limits": limits(walk)}
            _say(json.dumps({**answer, "error": None}))
        else:
            _say("\n".join(summary(report, walk)))
    except AuditError as error:
        return _failed(str(error), as_json)
    except OSError as error:
        return _failed(f"Stopped by the system: {error}.", as_json)
    except KeyboardInterrupt:
        return _failed("Stopped; nothing can be said about the log.", as_json)
    except SystemExit:
        raise
    except BaseException:  # a fault of this program must never look like a verdict
        traceback.print_exc()
        return _failed("This program failed in a way that nobody foresaw, see above.", as_json)
    return report.exit_code


def _verify(options: argparse.Namespace) -> tuple[Report, Walk]:
    keyring = Keyring.to_verify(_key_text(options.key), options.require)
    if options.require and not _has(keyring, options.require):
        raise UsageError(f"--require {options.require}: the key file has no key of that kind.")
    folder = Folder.find(options.folder, here=options.here)
    kept = _kept(options.checkpoint)
    with _progress() as progress:
        return verify(
            folder,
            keyring,
            kept=kept,
            processes=options.processes or _processes(folder),
            progress=progress,
        )


def _has(keyring: Keyring, algorithm: str) -> bool:
    return any(key.algorithm == algorithm for key in keyring.known.values())


class _Parser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and how to call it."""
        usage = " ".join(self.format_usage().split())
        raise UsageError(f"{message[:1].upper()}{message[1:]}. {usage}")


def _parser() -> argparse.ArgumentParser:
    name = Path(sys.argv[0]).name
    parser = _Parser(
        prog=name if name.endswith(".pyz") else "python -m audit.offline",
        description="Verify a copy of a Dezky audit bucket: every signature, byte, link and root.",
        epilog="exit codes: 0 ok; 1 tampered; 2 unverifiable, wrong usage, or a failure of this "
        "program; 3 gap",
        allow_abbrev=False,
    )
    parser.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="the bucket's keys as paths, or the files of its prefix alone",
    )
    parser.add_argument(
        "--key",
        required=True,
        metavar="FILE|-",
        help="the keys: ALGORITHM:KEY_ID:BASE64 a line, or one HMAC key in base64",
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="a checkpoint that was kept elsewhere"
    )
    parser.add_argument(
        "--require",
        choices=(HMAC_SHA256, ED25519),
        metavar="ALGORITHM",
        help=f"a signature of this kind on everything: {HMAC_SHA256} or {ED25519}",
    )
    parser.add_argument(
        "--here",
        action="store_true",
        help="DIR itself has the log's files; what is in folders below it is no part of the log",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--processes", type=_count, metavar="N", help="by default, as many as there are cores"
    )
    return parser


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,2}", text) or not 1 <= int(text) <= MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST_PROCESSES}")
    return int(text)


def _key_text(name: str) -> str:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_KEY_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(MAX_KEY_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"The key file {name} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UsageError(f"The key file {name} is no text: it has a key a line.") from None
    if len(data) > MAX_KEY_BYTES:
        raise UsageError(f"The key file {name} has more than {MAX_KEY_BYTES:,} bytes.")
    if not text.strip():
        raise UsageError(f"The key file {name} is empty: it has a key a line.")
    return text


def _kept(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return file.read(MAX_CHECKPOINT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"The checkpoint {path} cannot be read ({error.strerror}).") from None


def _processes(folder: Folder) -> int:
    """Return how many processes are worth their start."""
    names = filter(None, map(ObjectName.parse, folder.names()))
    objects = sum(name.kind is ObjectKind.JSONL for name in names)
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(ours or 1, objects, MOST_PROCESSES) if objects >= MANY_OBJECTS else 1


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """Yield what counts events on a terminal, and takes the line away at the end."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda events: None
        return
    seen = 0

    def count(events: int) -> None:
        nonlocal seen
        seen += events
        sys.stderr.write(f"\r{seen:,} events")
        sys.stderr.flush()

    try:
        yield count
    finally:
        sys.stderr.write("\r\x1b[K")


def _say(text: str) -> None:
    """Print; raises UsageError where that cannot be done."""
    if sys.stdout is None:
        raise UsageError("There is no standard output to write to.")
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        # What is still in the buffer would be tried again at the end, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UsageError(f"What was found could not be written ({error.strerror}).") from None


def _failed(sentence: str, as_json: bool) -> int:
    if as_json:
        answer = {"outcome": Kind.UNVERIFIABLE.value, "error": printable(sentence)}
        with suppress(AuditError):
            _say(json.dumps(answer))
            return UNVERIFIABLE
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(f"unverifiable: {printable(sentence)}\n")
    return UNVERIFIABLE


if __name__ == "__main__":
    sys.exit(main())
