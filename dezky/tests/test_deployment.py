"""What the project is deployed with agrees with its settings and with its README."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
READ = re.compile(r"env\.(\w+)\(\s*\"([A-Z_]+)\"")
VARIABLE = re.compile(r"^#?([A-Z_]+)=", re.M)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def settings() -> dict[str, str]:
    """Return {variable: how it is read} of all that the settings read."""
    return {name: kind for kind, name in READ.findall(text("dezky/settings.py"))}


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load(text("docker-compose.yml"))


def test_the_example_has_every_setting_and_no_other() -> None:
    assert set(VARIABLE.findall(text(".env.example"))) == set(settings())


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


def test_compose_starts_the_console_redis_and_the_s3_server(compose: Any) -> None:
    assert set(compose["services"]) == {"web", "redis", "s3"}
    for service in compose["services"].values():
        image = service["image"]
        assert ":" in image
        assert not image.endswith(":latest")
        assert service["restart"] == "unless-stopped"


def test_compose_names_only_settings_that_exist(compose: Any) -> None:
    named = set(compose["services"]["web"]["environment"])
    named |= set(re.findall(r"\$\{([A-Z_]+)", text("docker-compose.yml")))
    assert named <= set(settings())


def test_compose_holds_no_secret(compose: Any) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if "KEY" in name or "PASSWORD" in name:
                assert value.startswith("${")


def test_compose_publishes_to_this_host_alone(compose: Any) -> None:
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_ci_runs_the_commands_of_the_readme_and_no_others() -> None:
    (block,) = re.findall(r"^## Two commands$.*?^```\n(.*?)^```$", text("README.md"), re.M | re.S)
    commands = [line.split()[0] for line in block.splitlines()]
    assert commands == ["./scripts/bootstrap.sh", "./scripts/test.sh"]
    run = [line.split()[0] for line in text(".ci/run").splitlines() if line.startswith("./")]
    assert set(run) == set(commands)


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
