"""The offline verifier as a command: how it is called, what it is given, how it ends.

Exit code 1 means that somebody changed the log. Nothing else may end in it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from audit import offline
from audit.format.examine import examine
from audit.format.signing import Keyring

from .factories import key, keyring
from .signed_log import SignedLog, signed_log
from .simulator import Site
from .test_offline import key_line

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "scripts" / "build-verifier.sh"
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def small() -> SignedLog:
    return SignedLog((5, 5), (0, 7, 12))


@pytest.fixture
def folder(small: SignedLog, tmp_path: Path) -> Path:
    return small.write(tmp_path / "copy")


@pytest.fixture
def keys(tmp_path: Path) -> str:
    file = tmp_path / "keys"
    file.write_text(key_line(key("a")))
    return str(file)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the verifier in it and nothing else."""
    place = tmp_path_factory.mktemp("bare")
    (place / "audit" / "format").mkdir(parents=True)
    for name in ("__init__.py", "offline.py"):
        shutil.copy(ROOT / "audit" / name, place / "audit" / name)
    for file in (ROOT / "audit" / "format").glob("*.py"):
        shutil.copy(file, place / "audit" / "format" / file.name)
    return place


def run(place: Path, *args: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run it from a folder without the requirements, and without anything that is installed."""
    return subprocess.run(
        [sys.executable, "-S", "-E", "-m", "audit.offline", *map(str, args)],
        cwd=place,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# Without anything else ------------------------------------------------------------------------


def test_it_runs_without_anything_that_is_installed(bare: Path, folder: Path, keys: str) -> None:
    done = run(bare, folder, "--key", keys, "--processes", "2")
    assert (done.returncode, done.stderr) == (0, "")
    totals, *limits, verdict = done.stdout.splitlines()
    assert totals.startswith(
        "2/2 manifests valid, 2/2 objects valid, 3/3 checkpoints valid, 10 events, seq 1–10, root "
    )
    assert totals.endswith(", 0 gaps")
    assert all(line.startswith("not shown by this: ") for line in limits)
    assert verdict == "ok: log 'dezky-test', 10 events"


def test_it_needs_cryptography_for_an_ed25519_key_alone(
    bare: Path, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "public"
    file.write_text("ed25519-public:e-1:" + "A" * 43 + "=\n")
    done = run(bare, folder, "--key", file)
    assert done.returncode == 2
    assert "needs the Python package 'cryptography'" in done.stderr


def test_a_problem_is_a_line_with_its_place_and_what_to_do(
    bare: Path, small: SignedLog, folder: Path, keys: str
) -> None:
    (folder / small.object_names[0]).unlink()
    done = run(bare, folder, "--key", keys)
    assert done.returncode == 3
    assert done.stdout.splitlines()[0] == (
        f"gap: {small.object_names[0]}: is missing: seq 1–5 could not be checked. Restore it from "
        "a copy of the bucket."
    )
    assert done.stdout.splitlines()[-1] == "gap: log 'dezky-test', 5 events"


def test_what_a_real_run_wrote_to_a_real_server(bare: Path, site: Site, tmp_path: Path) -> None:
    assert site.archive()["exit"] == 0
    for name, data in {**site.objects(), **site.checkpoints()}.items():
        path = tmp_path / "download" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    secret = site.env["AUDIT_SIGNING_KEY"]
    done = run(bare, tmp_path / "download", "--key", "-", "--json", given=secret)
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert answer["outcome"] == "ok"
    assert answer["events"] == answer["last_seq"] == site.floor()
    assert answer["manifests"] == answer["objects"] == {"valid": 2, "total": 2}
    assert answer["checkpoints"]["valid"] == answer["checkpoints"]["total"] > 0
    tree = site.read_whole_log()
    assert answer["root"] == tree.tree(0, site.floor()).hex()


# One file -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    target = tmp_path_factory.mktemp("built") / "new" / "verify.pyz"
    done = subprocess.run([BUILD, target], capture_output=True, text=True, check=True)
    return target, done.stdout


def test_the_verifier_is_one_file(built: tuple[Path, str], folder: Path, keys: str) -> None:
    file, said = built
    digest = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True)
    assert said.splitlines() == [str(file), f"SHA-256 {digest.stdout.split()[0]}"]
    for options, code in (([], 0), (["--processes", "2"], 0), (["--processes", "0"], 2)):
        done = subprocess.run(
            [sys.executable, "-S", "-I", file, folder, "--key", keys, *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert ("ok: log" in done.stdout) == (code == 0)
        assert ("usage: verify.pyz" in done.stderr) == (code == 2)


def test_the_same_sources_make_the_same_file(built: tuple[Path, str], tmp_path: Path) -> None:
    subprocess.run(
        [BUILD, tmp_path / "again.pyz"],
        env={**os.environ, "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "0"},
        umask=0o077,
        capture_output=True,
        check=True,
    )
    assert (tmp_path / "again.pyz").read_bytes() == built[0].read_bytes()


# Where the log is -----------------------------------------------------------------------------


def outcome(capsys: Captured, *args: str | Path) -> tuple[int, str]:
    """Return exit code and outcome of a run that prints JSON."""
    code = offline.main([*map(str, args), "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out)["outcome"]


@pytest.mark.parametrize("below", ["", "audit/v1", "a copy of 2026/bucket/audit/v1", "march"])
def test_the_log_may_be_below_the_folder(
    small: SignedLog, tmp_path: Path, keys: str, capsys: Captured, below: str
) -> None:
    """Where a copy lies on a disk is no matter, and no tampering."""
    small.write(tmp_path / "copy" / below)
    assert outcome(capsys, tmp_path / "copy", "--key", keys) == (0, "ok")


def test_two_logs_in_one_folder_are_too_many(
    small: SignedLog, tmp_path: Path, keys: str, capsys: Captured
) -> None:
    small.write(tmp_path / "copy" / "one")
    small.write(tmp_path / "copy" / "two")
    code = offline.main([str(tmp_path / "copy"), "--key", keys])
    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith("unverifiable: ")
    assert (
        f"2 logs in it: give one of {tmp_path}/copy/one, {tmp_path}/copy/two, with --here." in said
    )


def test_what_looks_like_a_log_below_a_log_is_no_part_of_it_if_that_is_said(
    small: SignedLog, tmp_path: Path, keys: str, capsys: Captured
) -> None:
    small.write(tmp_path / "copy")
    small.write(tmp_path / "copy" / "below")
    assert outcome(capsys, tmp_path / "copy", "--key", keys) == (2, "unverifiable")
    assert outcome(capsys, tmp_path / "copy", "--key", keys, "--here") == (0, "ok")


@pytest.mark.parametrize("name", ["jsonl.gz", "manifest.json"])
def test_a_name_that_is_planted_above_a_log_does_not_hide_it(
    small: SignedLog, tmp_path: Path, keys: str, capsys: Captured, name: str
) -> None:
    small.write(tmp_path / "copy" / "audit" / "v1")
    (tmp_path / "copy" / "audit" / "v1" / small.manifest_names[0]).unlink()
    (tmp_path / "copy" / f"{1:020d}-{1:020d}-{'0' * 16}.{name}").write_text("")
    assert outcome(capsys, tmp_path / "copy", "--key", keys) != (0, "ok")
    found = outcome(capsys, tmp_path / "copy" / "audit" / "v1", "--key", keys)
    assert found == (3, "gap")


def test_a_folder_of_checkpoints_that_is_a_link(
    small: SignedLog, folder: Path, tmp_path: Path, keys: str, capsys: Captured
) -> None:
    (folder / "checkpoints").rename(tmp_path / "elsewhere")
    (folder / "checkpoints").symlink_to(tmp_path / "elsewhere")
    code = offline.main([str(folder), "--key", keys, "--json"])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["checkpoints"] == {"valid": 3, "total": 3}


# Wrong usage -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (None, "is no folder: give the one"),
        ([], "has no manifest and no checkpoint in it"),
        (["notes.txt", "manifest.json", "0-1.jsonl.gz"], "has no manifest and no checkpoint"),
        ("file", "is no folder: give the one"),
    ],
    ids=["missing", "empty", "of other things", "a file"],
)
def test_a_folder_without_a_log(
    tmp_path: Path, keys: str, capsys: Captured, make: list[str] | str | None, said: str
) -> None:
    place = tmp_path / "copy"
    if isinstance(make, str):
        place.write_text("")
    elif make is not None:
        place.mkdir()
        for name in make:
            (place / name).write_text("")
    assert offline.main([str(place), "--key", keys]) == 2
    assert said in capsys.readouterr().err
    assert outcome(capsys, place, "--key", keys) == (2, "unverifiable")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"# a remark\n", "no key in the key file"),
        (bytes(range(256)), "is no text"),
        (b"\0" * 44, "not base64"),
        (b"hmac-sha256", "not base64"),
        (b"hmac-sha256:a:b:c:d:e", "does not have the form"),
        (b"x" * 100_000, "more than 65,536 bytes"),
        (None, "cannot be read (No such file or directory)"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_a_key_file_without_a_key(
    folder: Path, tmp_path: Path, capsys: Captured, content: bytes | None, said: str
) -> None:
    file = tmp_path / "bad"
    if content is not None:
        file.write_bytes(content)
    assert offline.main([str(folder), "--key", str(file)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert outcome(capsys, folder, "--key", file) == (2, "unverifiable")


def test_a_key_file_may_have_a_byte_order_mark_and_carriage_returns(
    folder: Path, tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "windows"
    lines = f"# for the auditor\r\n{key_line(key('a'))}\r\n{key_line(key('b'))}\r\n"
    file.write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert outcome(capsys, folder, "--key", file) == (0, "ok")


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["{folder}"],
        ["--key", "{keys}"],
        ["{folder}", "{folder}", "--key", "{keys}"],
        ["{folder}", "--key"],
        ["{folder}", "--key", "{keys}", "--require", "rot13"],
        ["{folder}", "--key", "{keys}", "--require", "ed25519"],
        ["{folder}", "--key", "{keys}", "--processes", "0"],
        ["{folder}", "--key", "{keys}", "--processes", "65"],
        ["{folder}", "--key", "{keys}", "--processes", "²"],
        ["{folder}", "--key", "{keys}", "--processes", "9" * 5_000],
        ["{folder}", "--key", "{keys}", "--proc", "2"],
        ["{folder}", "--key", "{keys}", "--checkpoint", "{folder}/none"],
        ["{folder}", "--key", "{keys}", "--checkpoint", "{folder}"],
        ["{folder}", "--key", "{keys}", "--checkpoint", "{keys}"],
        ["{folder}\x1b[31m", "--key", "{keys}"],
        ["{folder}\0", "--key", "{keys}"],
    ],
)
def test_wrong_usage_ends_in_2_and_says_so_in_one_line_or_one_object(
    folder: Path, keys: str, capsys: Captured, args: list[str]
) -> None:
    given = [arg.format(folder=folder, keys=keys) for arg in args]
    assert offline.main(given) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("unverifiable: ")
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err[:-1].isprintable()
    assert outcome(capsys, *given) == (2, "unverifiable")


def test_a_kept_checkpoint_that_is_not_good_says_nothing_about_the_log(
    small: SignedLog, folder: Path, tmp_path: Path, keys: str, capsys: Captured
) -> None:
    file = tmp_path / "kept.json"
    good = small.files[small.point_names[2]]
    other = SignedLog((1,), (1,), ring=keyring("b"))
    for data in (good[:-1], good.replace(b'"seq":12', b'"seq":13'), b"\0" * 100_000,
                 other.files[other.point_names[0]]):  # fmt: skip
        file.write_bytes(data)
        code = offline.main([str(folder), "--key", keys, "--checkpoint", str(file)])
        assert code == 2
        assert "the log was not looked at" in capsys.readouterr().err


# Things that are no files -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["object", "manifest", "checkpoint"])
def test_a_folder_in_a_file_s_place_is_a_gap(
    small: SignedLog, folder: Path, keys: str, capsys: Captured, kind: str
) -> None:
    name = {
        "object": small.object_names[0],
        "manifest": small.manifest_names[0],
        "checkpoint": small.point_names[1],
    }[kind]
    (folder / name).unlink()
    (folder / name).mkdir()
    assert offline.main([str(folder), "--key", keys, "--json"]) == 3
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["object"] == name
    assert "is missing, a folder has its name" in problem["message"]


@pytest.mark.parametrize("nth", [0, 1])
def test_a_named_pipe_is_not_waited_for(
    small: SignedLog, folder: Path, keys: str, capsys: Captured, nth: int
) -> None:
    name = (small.object_names[0], small.manifest_names[1])[nth]
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert outcome(capsys, folder, "--key", keys) == (2, "unverifiable")


def test_a_link_to_a_file_is_followed_and_one_to_nothing_is_a_gap(
    small: SignedLog, folder: Path, tmp_path: Path, keys: str, capsys: Captured
) -> None:
    name = folder / small.object_names[0]
    name.rename(tmp_path / "annexed")
    name.symlink_to(tmp_path / "annexed")
    assert outcome(capsys, folder, "--key", keys) == (0, "ok")
    (tmp_path / "annexed").unlink()
    assert outcome(capsys, folder, "--key", keys) == (3, "gap")
    name.unlink()
    name.symlink_to(name)
    assert outcome(capsys, folder, "--key", keys) == (2, "unverifiable")


def test_a_file_that_may_not_be_read_is_no_verdict(
    small: SignedLog, folder: Path, keys: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: Path, flags: int) -> int:
        if Path(path).name == small.object_names[0]:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags)

    monkeypatch.setattr(os, "open", refuse)
    assert offline.main([str(folder), "--key", keys, "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["message"].startswith("cannot be read (Permission denied): seq 1–5 could not")


@pytest.mark.parametrize("at", ["", "checkpoints"])
def test_a_folder_that_may_not_be_read_is_never_passed_over(
    folder: Path, keys: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    scan = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path) == folder / at:
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert offline.main([str(folder), "--key", keys]) == 2
    assert "cannot be read (Permission denied)" in capsys.readouterr().err


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_a_huge_file_is_not_read_as_a_whole(
    small: SignedLog, folder: Path, keys: str, capsys: Captured, nth: int
) -> None:
    name = (small.object_names[0], small.manifest_names[0], small.point_names[0])[nth]
    os.truncate(folder / name, 200 * 1024**3)
    tracemalloc.start()
    try:
        assert outcome(capsys, folder, "--key", keys) == (1, "tampered")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40_000_000


# Names and what a terminal does with them ---------------------------------------------------


def test_names_that_would_garble_a_terminal_are_escaped(
    folder: Path, keys: str, capsys: Captured
) -> None:
    names = [b"\x1b[31mred", b"two\nlines", b"\xff\xfe", "right\u202eto left".encode(), b"\x9b2J"]
    for name in names:
        (folder / os.fsdecode(name)).write_text("")
        place = folder / os.fsdecode(b"in " + name)
        place.mkdir()
        (place / "file").write_text("")
    assert offline.main([str(folder), "--key", keys]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert all(line.isprintable() for line in lines)
    notes = [line for line in lines if line.startswith("note: Foreign")]
    assert len(notes) == 2 * len(names)
    assert "note: Foreign, no part of the log: \\x1b[31mred" in notes
    assert offline.main([str(folder), "--key", keys, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.dumps(json.loads(out), ensure_ascii=False).encode(), "no lone surrogates"


def test_what_an_unsigned_document_says_is_escaped(
    small: SignedLog, folder: Path, keys: str, capsys: Captured
) -> None:
    other = Keyring([type(key("b"))("\x1b[2J\u202e", key("b").secret)])
    log = SignedLog((5, 5), (0, 7, 12))
    log.sign(2, ring=other)
    (folder / small.manifest_names[1]).unlink()
    log.write(folder)
    assert offline.main([str(folder), "--key", keys]) == 2
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.split("\n"))
    assert "\\x1b[2J\\u202e" in out


def test_thousands_of_foreign_names_are_not_thousands_of_lines(
    folder: Path, keys: str, capsys: Captured
) -> None:
    for number in range(300):
        (folder / f"{number}.txt").write_text("")
    for number in range(1, 1_202):
        (folder / f"{number:020d}-{number:020d}-{'0' * 16}.jsonl.gz").write_text("")
    assert offline.main([str(folder), "--key", keys]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 1_010
    assert "note: Foreign, too: 200 more" in lines
    assert "and 302 notes more" in lines


def test_a_terminal_without_dashes_is_no_crash(bare: Path, folder: Path, keys: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "audit.offline", folder, "--key", keys],
        cwd=bare,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert b"seq 1\\u201310" in done.stdout


# How it ends ------------------------------------------------------------------------------------


def test_a_pipe_that_is_closed_early_is_no_verdict(bare: Path, folder: Path, keys: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-m", "audit.offline", folder, "--key", keys],
        cwd=bare,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 2
    assert done.stderr == (b"unverifiable: What was found could not be written (Broken pipe).\n")


def test_ctrl_c_is_no_verdict(bare: Path, folder: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "keys"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", "-m", "audit.offline", folder, "--key", pipe, "--json"],
        cwd=bare,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with pipe.open("wb"):  # it waits for the key now
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, b"")
    assert json.loads(out)["outcome"] == "unverifiable"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError, RecursionError])
def test_whatever_goes_wrong_within_is_no_verdict(
    folder: Path,
    keys: str,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(offline, "examine", fail)
    assert outcome(capsys, folder, "--key", keys) == (2, "unverifiable")
    assert offline.main([str(folder), "--key", keys]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("unverifiable: ")


def test_a_process_that_dies_is_no_verdict(
    folder: Path, keys: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies = partial(examine, initializer=signal.raise_signal, initargs=(signal.SIGKILL,))
    monkeypatch.setattr(offline, "examine", dies)
    assert offline.main([str(folder), "--key", keys, "--processes", "2"]) == 2
    assert "A process that looked at objects has died" in capsys.readouterr().err


def test_processes_end_with_the_one_that_started_them(bare: Path, tmp_path: Path) -> None:
    program = (
        "import sys, os, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from audit.format.examine import _begin\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(1, get_context('spawn'), _begin, (None, ()))\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    (bare / "starts.py").write_text(program)
    with subprocess.Popen(
        [sys.executable, "-S", "starts.py"], cwd=bare, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
        assert process.stdout.read() == ""  # the worker holds it open for as long as it lives
    assert not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text()


def test_a_terminal_is_told_how_far_it_is(
    folder: Path, keys: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert offline.main([str(folder), "--key", keys]) == 0
    assert capsys.readouterr().err == "\r5 events\r10 events\r\x1b[K"


def test_many_objects_are_read_by_several_processes(tmp_path: Path) -> None:
    many = SignedLog((2,) * 8, ()).write(tmp_path / "many")
    few = signed_log().write(tmp_path / "few")
    cores = len(os.sched_getaffinity(0))
    assert offline._processes(offline.Folder.find(many)) == min(cores, 8)
    assert offline._processes(offline.Folder.find(few)) == 1
