"""docs/production.md and the units beside it name what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
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
    if path.suffix in {".service", ".target", ".conf"}
}
SCRIPT = (FOLDER / "manage.sh").read_text(encoding="utf-8")
PROGRAMS = Path(sys.executable).parent
INSTALLED = "/opt/dezky-audit/.venv/bin/"
# Of other programs, by their own names: gunicorn, Prometheus' client, Python, the shell, boto3.
FOREIGN = {
    "FORWARDED_ALLOW_IPS",
    "PROMETHEUS_MULTIPROC_DIR",
    "PYTHONDONTWRITEBYTECODE",
    "TMPDIR",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
}
# What stands in capitals and is no variable.
WORDS = {"NAME_FILE"}
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
    assert set(re.findall(r"\b([A-Z_]+)=", SCRIPT)) <= known()


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
    services = {name for name in UNITS if name.endswith(".service")}
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
        path.write_text(text, encoding="utf-8")
    units = [str(path) for path in sorted(tmp_path.glob("dezky-audit*")) if path.is_file()]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # What it does not know it only warns of; of other units on this machine it warns as well.
    complaints = [line for line in done.stderr.splitlines() if "dezky-audit" in line]
    assert (done.returncode, complaints) == (0, [])
