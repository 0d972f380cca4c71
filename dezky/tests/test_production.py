"""docs/production.md and the units beside it name what is there."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from django.core.management import get_commands

from dezky.celery import app

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/systemd"
GUIDE = (ROOT / "docs/production.md").read_text(encoding="utf-8")
UNITS = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted(FOLDER.rglob("*"))
    if path.suffix in {".service", ".target", ".timer", ".conf"}
}
SCRIPT = (FOLDER / "manage.sh").read_text(encoding="utf-8")
PROGRAMS = Path(sys.executable).parent
INSTALLED = "/opt/dezky-audit/.venv/bin/"
# Of other programs, by their own names: gunicorn, Prometheus' client, Python, the shell, boto3.
FOREIGN = {
    "FORWARDED_ALLOW_IPS",
    "IFS",
    "PROMETHEUS_MULTIPROC_DIR",
    "PYTHONDONTWRITEBYTECODE",
    "TMPDIR",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
}
# What stands in capitals and is no variable.
WORDS = {"NAME_FILE"}
# Called in place of the true ones. setpriv tells what it was to run, and its environment.
STANDINS = {
    "setpriv": 'printf "%s\\0" "$@"; printf "\\0"; env -0',
    "dezky-audit": 'exit "${CODE-0}"',
    "runuser": 'shift 3; exec "$@"',
}
SETTING = re.compile(r"env\.(\w+)\(\s*\"([A-Z_]+)\"")


def settings() -> dict[str, str]:
    """Return {variable: how it is read} of all that the settings read."""
    text = (ROOT / "dezky/settings.py").read_text(encoding="utf-8")
    return {name: kind for kind, name in SETTING.findall(text)}


def known() -> set[str]:
    """Return each variable that may be set: ours, with `_FILE` for a secret, and others'."""
    read = settings()
    files = {f"{name}_FILE" for name, kind in read.items() if kind in {"secret", "email"}}
    return set(read) | files | {"DEZKY_ENV_FILE"} | FOREIGN


def credentials() -> set[str]:
    return set(re.findall(r"^LoadCredential=(\w+):", UNITS["common.conf"], re.M))


def test_every_variable_that_is_named_can_be_set() -> None:
    in_code = re.findall(r"`([^`\n]+)`", GUIDE) + re.findall(r"^```.*?^```$", GUIDE, re.M | re.S)
    named = {name for text in in_code for name in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text)}
    named |= set(re.findall(r"^([A-Z_]+)=", GUIDE, re.M))
    assert {"AUDIT_COLD_ENDPOINT", "TRUSTED_PROXIES", "REDIS_URL"} <= named
    assert named - WORDS <= known()
    for unit, text in UNITS.items():
        lines = re.findall(r"^Environment=(.*)$", text, re.M)
        assert {name for line in lines for name in re.findall(r"(\w+)=", line)} <= known(), unit
    code = re.sub(r"^#.*$", "", SCRIPT, flags=re.M)
    assert set(re.findall(r"\b([A-Z_]+)=", re.sub("NAME=value", "", code))) <= known()


def test_every_command_that_is_named_exists() -> None:
    named = set(re.findall(r"\b(?:manage\.py|dezky-audit) ([a-z_]+)\b", GUIDE))
    assert {"migrate", "check", "archive_now", "verify_audit", "audit_keys"} <= named
    assert named <= set(get_commands())


def test_secrets_come_from_files_that_the_guide_names() -> None:
    common, read = UNITS["common.conf"], settings()
    for name in credentials():
        assert read[name] in {"secret", "email"}
        assert f"LoadCredential={name}:/etc/dezky-audit/secrets/{name}\n" in common
        assert f"Environment={name}_FILE=%d/{name}\n" in common
    table = GUIDE.partition("\n## Secrets\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.M)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == credentials()


def test_every_service_runs_a_program_that_is_installed_under_an_account_of_its_own() -> None:
    services = {name for name in UNITS if re.fullmatch(r"dezky-audit-.*\.service", name)}
    assert services == {
        f"dezky-audit-{name}.service" for name in ("web", "worker", "worker-short", "beat")
    }
    assert set(re.findall(r"dezky-audit-\S+", UNITS["dezky-audit.target"])) == services
    for name in services:
        (program,) = re.findall(rf"^ExecStart={INSTALLED}(\w+) ", UNITS[name], re.M)
        assert (PROGRAMS / program).is_file()
        assert "\nUser=dezky-audit\n" in UNITS[name]
        assert f"`{name}`" in GUIDE


def test_the_workers_take_every_queue_that_there_is() -> None:
    starts = re.findall(r"^ExecStart=.* worker (.*)$", "\n".join(UNITS.values()), re.M)
    taken = [queue for start in starts for queue in re.findall(r"-Q (\w+)", start)]
    assert sorted(taken) == sorted(queue.name for queue in app.conf.task_queues)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("*.service"):
        text = path.read_text(encoding="utf-8").replace(INSTALLED, f"{PROGRAMS}/")
        text = text.replace("/usr/local/sbin/dezky-backup", f"{FOLDER}/backup.sh")
        path.write_text(text, encoding="utf-8")
    units = [str(path) for path in sorted(tmp_path.glob("dezky-*")) if path.is_file()]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # What it does not know it only warns of; of other units on this machine it warns as well.
    complaints = [line for line in done.stderr.splitlines() if "dezky-" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Make a folder with the scripts, settings of a server, and stand-ins of what they call."""
    for name in ("etc/secrets", "bin", "opt", "copies"):
        (tmp_path / name).mkdir(parents=True)
    for script in ("manage.sh", "backup.sh"):
        text = (FOLDER / script).read_text(encoding="utf-8")
        for place, other in (("/etc/dezky-audit", "etc"), ("/opt/dezky-audit", "opt")):
            text = text.replace(place, str(tmp_path / other))
        (tmp_path / script).write_text(text, encoding="utf-8")
    for program, does in STANDINS.items():
        path = tmp_path / "bin" / program
        path.write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
        path.chmod(0o755)
    (tmp_path / "etc/env").write_text("AUDIT_ORIGIN=audit.example.eu\n", encoding="utf-8")
    return tmp_path


def call(server: Path, script: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(server / script), *words],
        cwd=server,
        env={"PATH": f"{server}/bin:/usr/bin:/bin"} | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def given(server: Path) -> dict[str, str]:
    """Return the environment that manage.py gets from the script."""
    done = call(server, "manage.sh", "check", "a b")
    assert done.returncode == 0, done.stderr
    command, _, environment = done.stdout.partition("\0\0")
    assert command.split("\0")[-4:] == [".venv/bin/python", "manage.py", "check", "a b"]
    return dict(line.split("=", 1) for line in environment.strip("\0").split("\0"))


def test_a_command_gets_the_settings_as_they_stand(server: Path) -> None:
    lines = [
        "# A remark, and an empty line.",
        "",
        "EMAIL_FROM=Dezky audit <audit@example.eu>",
        "  AUDIT_ALARM_EMAILS= nobody@example.eu  ",
        "AUDIT_ALARM_WEBHOOK_URL=https://example.eu/$(touch made)?a=`touch made`&$HOME;touch made",
        "LOG_LEVEL=",
        "AUDIT_ORIGIN=audit #1",  # the last line has no end
    ]
    (server / "etc/env").write_text("\n".join(lines), encoding="utf-8")
    found = given(server)
    assert found["EMAIL_FROM"] == "Dezky audit <audit@example.eu>"
    assert found["AUDIT_ALARM_EMAILS"] == "nobody@example.eu"
    assert found["AUDIT_ALARM_WEBHOOK_URL"] == lines[4].partition("=")[2]
    assert (found["LOG_LEVEL"], found["AUDIT_ORIGIN"]) == ("", "audit #1")
    assert found["DEZKY_ENV_FILE"] == ""
    assert not list(server.rglob("made"))


@pytest.mark.parametrize(
    "line",
    [
        'AUDIT_ORIGIN="audit"',
        "AUDIT_ORIGIN='audit'",
        "AUDIT_ORIGIN=a\\",
        "AUDIT_ORIGIN",
        "=audit",
        "export AUDIT_ORIGIN=audit",
        "AUDIT_ORIGIN =audit",
    ],
)
def test_a_line_that_systemd_reads_otherwise_is_refused(server: Path, line: str) -> None:
    (server / "etc/env").write_text(f"LOG_LEVEL=INFO\n{line}\n", encoding="utf-8")
    done = call(server, "manage.sh", "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{server}/etc/env, line 2: ")


def test_secrets_may_be_none_or_empty_or_have_a_space(server: Path) -> None:
    assert not {"SECRET_KEY", "*"} & set(given(server))
    (server / "etc/secrets/SECRET_KEY").write_text("two words\n", encoding="utf-8")
    (server / "etc/secrets/AUDIT_SIGNING_KEYS").write_text("one:$x\ntwo\n", encoding="utf-8")
    (server / "etc/secrets/METRICS_TOKEN").touch()
    found = given(server)
    assert found["SECRET_KEY"] == "two words"
    assert found["AUDIT_SIGNING_KEYS"] == "one:$x\ntwo"
    assert found["METRICS_TOKEN"] == ""


def test_what_an_editor_leaves_beside_a_secret_is_none(server: Path) -> None:
    for name in ("REDIS_URL~", "REDIS_URL.bak", "#REDIS_URL#", ".REDIS_URL.swp", "redis_url"):
        (server / "etc/secrets" / name).write_text("old", encoding="utf-8")
    (server / "etc/secrets/REDIS_URL").write_text("new", encoding="utf-8")
    found = given(server)
    assert found["REDIS_URL"] == "new"
    assert "old" not in found.values()


def backed_up(server: Path, code: int) -> tuple[int, list[str]]:
    """Copy two databases; return the exit code and the copies that are there."""
    for name in ("dezky.sqlite3", "dezky-hot.sqlite3"):
        with closing(sqlite3.connect(server / name)) as database:
            database.execute("CREATE TABLE IF NOT EXISTS t (x)")
    files = [f"{server}/dezky.sqlite3", f"{server}/dezky-hot.sqlite3"]
    done = call(server, "backup.sh", f"{server}/copies", *files, CODE=str(code))
    return done.returncode, sorted(path.name for path in (server / "copies").iterdir())


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3 here")
def test_a_new_copy_takes_the_place_of_the_old_one_where_the_log_was_signed(server: Path) -> None:
    old = [f"copy-of-{name}-20200101T000000Z.sqlite3" for name in ("dezky", "dezky-hot")]
    others = ["copy-of-dezky-old.sqlite3", "dezky-20200101T000000Z.sqlite3"]
    for name in old + others:
        (server / "copies" / name).touch()
    code, there = backed_up(server, 1)  # refused
    assert (code, len(there)) == (1, 6)
    assert {*old, *others} <= set(there)
    for signed in (0, 3):  # 3: and it waits for the bucket
        for name in old:
            (server / "copies" / name).touch()
        code, there = backed_up(server, signed)
        assert (code, len(there)) == (0, 4)
        assert set(others) <= set(there)
        assert not set(old) & set(there)
    for name in set(there) - set(others):
        with closing(sqlite3.connect(server / "copies" / name)) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_copies_are_made_at_the_minutes_that_the_guides_name() -> None:
    (minutes,) = re.findall(r"^OnCalendar=\*:([\d,]+)$", UNITS["dezky-backup.timer"], re.M)
    handbook = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
    assert f"{minutes} * * * *" in handbook
    assert f"at {minutes.replace(',', ' and ')} minutes past each hour" in GUIDE
