"""What the project is deployed with agrees with its settings and with its README."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

ROOT = Path(__file__).parents[2]
READ = re.compile(r"env\.(\w+)\(\s*\"([A-Z_]+)\"")
VARIABLE = re.compile(r"^#?([A-Z_]+)=", re.M)
OF_COMPOSE = "# --- For docker-compose.yml alone"
# What programs read that are not ours.
FOREIGN = {"DEZKY_ENV_FILE", "PROMETHEUS_MULTIPROC_DIR", "TMPDIR"}
OURS = {"web", "worker", "worker-short", "beat", "migrate", "bucket-init"}
ONCE = {"migrate", "bucket-init"}
REDIS_WITHOUT = "redis://:@redis:6379/0"
PROFILES = {"minio", "postgres", "mongo"}
SERVERS = {"redis", "s3"} | PROFILES


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def settings() -> dict[str, str]:
    """Return {variable: how it is read} of all that the settings read."""
    return {name: kind for kind, name in READ.findall(text("dezky/settings.py"))}


def of_compose() -> set[str]:
    """Return the variables that .env has for the compose file alone."""
    return set(VARIABLE.findall(text(".env.example").partition(OF_COMPOSE)[2]))


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load(text("docker-compose.yml"))


def test_the_example_has_every_setting_and_no_other() -> None:
    assert set(VARIABLE.findall(text(".env.example"))) - of_compose() == set(settings())
    assert of_compose()
    assert not of_compose() & set(settings())


def test_the_readme_explains_every_setting() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", text("README.md"), re.M))
    assert set(rows) - {"DEZKY_ENV_FILE"} == set(settings())
    for name, kind in settings().items():
        assert ("secret" in rows[name]) == (kind == "secret" or name.endswith("DATABASE_URL")), (
            name
        )


def test_the_example_holds_no_secret() -> None:
    for name, kind in settings().items():
        if kind == "secret":
            assert not re.search(rf"^{name}=.", text(".env.example"), re.M)


def test_the_example_holds_no_password_of_compose() -> None:
    part = text(".env.example").partition(OF_COMPOSE)[2]
    assert not re.search(r"^#?[A-Z_]*PASSWORD=.", part, re.M)


def test_compose_starts_the_whole_stack_and_keeps_it_small_and_locked(compose: Any) -> None:
    assert set(compose["services"]) == OURS | SERVERS
    for name, service in compose["services"].items():
        assert service.get("profiles", []) == ([name] if name in PROFILES else []), name
        assert service["restart"] == ("no" if name in ONCE else "unless-stopped"), name
        assert service["read_only"] is True, name
        assert service["tmpfs"], name
        assert service["user"] not in {"root", "0", "0:0"}, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["logging"] == {
            "driver": "json-file",
            "options": {"max-size": "20m", "max-file": "5"},
        }, name
        assert name in ONCE or service["stop_grace_period"], name
        assert "privileged" not in service, name
        image = service["image"]
        tag = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", image).rpartition("/")[2].partition(":")[2]
        assert tag not in {"", "latest"}, name
        for volume in service["volumes"]:  # named ones: no folder of the host
            assert volume.partition(":")[0] in compose["volumes"], name


def test_compose_looks_whether_each_service_is_well(compose: Any) -> None:
    services = compose["services"]
    for name, service in services.items():
        look = service["healthcheck"]
        if name in ONCE:
            assert look == {"disable": True}, name  # it ends, and that is what is waited for
        else:
            assert look["test"][0] == "CMD", name
            assert look["interval"], name
            assert look["timeout"], name
    image = re.search(r"^HEALTHCHECK [^\[]*CMD (\[.*\])$", text("Dockerfile"), re.M)
    assert image
    assert yaml.safe_load(image[1]) == services["web"]["healthcheck"]["test"][1:]
    assert "'/healthz'" in image[1]
    for name in ("worker", "worker-short"):
        assert services[name]["hostname"] == name  # which its look asks for
        command = services[name]["command"]
        node = command[command.index("-n") + 1].replace("%h", name)
        assert node in services[name]["healthcheck"]["test"]


def test_compose_starts_in_order(compose: Any) -> None:
    for name in OURS - ONCE:
        assert compose["services"][name]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "bucket-init": {"condition": "service_completed_successfully"},
            "redis": {"condition": "service_healthy"},
        }


def test_compose_names_only_variables_that_exist(compose: Any) -> None:
    for name in OURS:
        service = compose["services"][name]
        assert set(service["environment"]) <= set(settings()) | FOREIGN
        assert service["env_file"] == ".env"
    lines = [re.sub(r"^ *#.*", "", line) for line in text("docker-compose.yml").splitlines()]
    used = set(re.findall(r"(?<!\$)\$\{?([A-Z_]+)", "\n".join(lines)))
    assert used <= set(settings()) | of_compose()
    assert used >= of_compose()


def test_make_env_makes_every_secret_that_compose_insists_on(tmp_path: Path) -> None:
    """In a new file, and in one of an earlier version, of which it changes nothing."""
    insisted = set(re.findall(r"\$\{([A-Z_]+):\?", text("docker-compose.yml")))
    script = [sys.executable, str(ROOT / "scripts/make_env.py")]
    new, old = tmp_path / "new", tmp_path / "old"
    subprocess.run([*script, str(new)], check=True)
    assert insisted <= set(re.findall(r"^([A-Z_]+)=.", new.read_text(), re.M))
    assert set(VARIABLE.findall(new.read_text())) <= set(settings()) | of_compose()
    before = new.read_text().partition("\n# Scheduled work")[0].rstrip("\n")
    old.write_text(before + "\nMETRICS_TOKEN_FILE=/run/token")
    subprocess.run([*script, "--add", str(old)], check=True, stdout=subprocess.DEVNULL)
    after = old.read_text()
    assert after.startswith(before)
    found = re.findall(r"^([A-Z_]+)=.", after, re.M)
    assert len(found) == len(set(found))
    assert {*insisted, "REDIS_URL"} <= set(found)
    assert "METRICS_TOKEN" not in found  # it comes from a file there
    again = subprocess.run([*script, "--add", str(old)], check=False, stderr=subprocess.DEVNULL)
    assert again.returncode == 1
    assert old.read_text() == after


def test_compose_holds_no_secret(compose: Any) -> None:
    secret = {name for name, kind in settings().items() if kind == "secret"} | of_compose()
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if name in secret or re.search("KEY|PASSWORD|AUTH|ROOT_USER", name):
                assert re.sub(r"\$\{[A-Z_]+(:[?-][^}]*)?\}", "", value) in {"", REDIS_WITHOUT}
        # What is on a command line, everybody on the host can read.
        words = [service.get("command", ""), service.get("healthcheck", "")]
        assert not re.search(r"(?<!\$)\$(?!\$)\{?[A-Z]", str(words))


def test_compose_publishes_to_this_host_alone(compose: Any) -> None:
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_compose_and_the_supervisor_run_the_same_commands_and_each_exists(compose: Any) -> None:
    local = dict(
        re.findall(r"^([\w-]+): .*? -- \.venv/bin/python (.*)$", text("scripts/Procfile"), re.M)
    )
    for name in OURS - ONCE:
        program, *rest = compose["services"][name]["command"]
        assert (Path(sys.executable).parent / program).exists()
        here = local[name].replace("-m ", "", 1).replace(" --quiet", "").split()
        assert here[0] == program
        if program == "celery":
            assert here[1:] == rest
        else:
            options = {
                word.replace(" ", "=") for word in re.findall(r"--[\w-]+(?:[ =]\w+)?", local[name])
            }
            assert {"--worker-class=gthread", "--workers=2", "--threads=4"} <= options & set(rest)
    for name in ONCE:
        python, manage, command, *_ = compose["services"][name]["command"]
        assert (python, manage) == ("python", "manage.py")
        assert command in get_commands()
    assert set(local) == OURS - ONCE | {"s3", "redis"}


def test_what_the_look_at_beat_calls_is_there(compose: Any) -> None:
    command = compose["services"]["beat"]["healthcheck"]["test"][-1].removeprefix("--command=")
    module, name = re.findall(r"^from (\S+) import (\w+); \2\(\)\.run\(\)$", command)[0]
    assert callable(getattr(import_module(module), name)().run)


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="there is no docker-compose here")
def test_docker_compose_reads_it(tmp_path: Path) -> None:
    """Debian's 1.29 does, and with it newer ones; it needs no Docker for that."""
    shutil.copy2(ROOT / "docker-compose.yml", tmp_path)
    subprocess.run([sys.executable, ROOT / "scripts/make_env.py", tmp_path / ".env"], check=True)
    profiles = [f"--profile={name}" for name in sorted(PROFILES)]
    answer = subprocess.run(
        ["docker-compose", *profiles, "config"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert set(yaml.safe_load(answer.stdout)["services"]) == OURS | SERVERS


def test_the_image_has_what_runs_and_no_test(compose: Any) -> None:
    """Each line of .dockerignore that lets something in names something; tests stay out."""
    lines = text(".dockerignore").splitlines()
    for line in lines:
        if line.startswith("!"):
            assert (ROOT / line[1:]).exists(), line
    for package in ("audit", "tenants", "dezky"):
        assert f"!{package}/" in lines
        assert f"{package}/tests/" in lines
    dockerfile = text("Dockerfile")
    uid = compose["services"]["web"]["user"].partition(":")[0]
    assert f"--uid {uid} " in dockerfile
    folders = {volume.partition(":")[2] for volume in compose["services"]["web"]["volumes"]}
    assert (
        set(re.findall(r'"(/\w+)"', dockerfile.partition("VOLUME")[2].partition("\n")[0]))
        == folders
    )
    assert re.search(r"^USER dezky$", dockerfile, re.M)


def test_ci_runs_the_commands_of_the_readme_and_no_others() -> None:
    (block,) = re.findall(r"^## Two commands$.*?^```\n(.*?)^```$", text("README.md"), re.M | re.S)
    commands = [line.split()[0] for line in block.splitlines()]
    assert commands == ["./scripts/bootstrap.sh", "./scripts/test.sh"]
    run = [line.split()[0] for line in text(".ci/run").splitlines() if line.startswith("./")]
    # Before them, what they do without as well: the README says so of it.
    assert run[0] == "./scripts/install-checkers.sh"
    assert run[0] in text("README.md")
    assert set(run[1:]) == set(commands)


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-local.txt", "requirements-dev.txt"]
)
def test_every_version_is_pinned_with_its_digest_and_no_index_is_named(name: str) -> None:
    lines = text(name)
    pins = re.findall(r"^([a-z0-9][a-z0-9._-]*(?:\[[a-z0-9,-]+\])?)(.*)$", lines, re.M | re.I)
    assert pins
    for package, rest in pins:
        assert rest.startswith("=="), package
        assert re.search(rf"^{re.escape(package)}==.*\\\n +--hash=sha256:", lines, re.M), package
    assert "://" not in re.sub(r"^ *#.*$", "", lines, flags=re.M)
