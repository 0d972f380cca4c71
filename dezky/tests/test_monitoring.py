"""The alert rules and the dashboard name what there is, and the rules fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.test import Client

from audit.models import Alarm

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/monitoring"
RULES, TESTS = FOLDER / "prometheus-rules.yml", FOLDER / "prometheus-rules.test.yml"
METRIC = re.compile(r"\b(?:dezky_audit|django)_\w+")
JOB = "dezky-audit"


def rules() -> list[Any]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> Any:
    return json.loads((FOLDER / "grafana-dashboard.json").read_text())


def expressions() -> Iterator[str]:
    """Yield every expression of the rules, their tests and the dashboard."""
    for rule in rules():
        yield rule["expr"]
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for series in test["input_series"]:
            yield series["series"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]
    for variable in dashboard()["templating"]["list"]:
        yield variable.get("definition", "")


@pytest.fixture
def metrics(client: Client, db: None, settings: Any) -> set[str]:
    """Return the names of all that `/metrics` gives; a histogram has three."""
    settings.METRICS_TOKEN = "token"
    client.get("/healthz")
    page = client.get("/metrics", headers={"Authorization": "Bearer token"}).content.decode()
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M):
        ends = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        found |= {f"{name}{end}" for end in ends}
    return found


def test_what_they_name_is_what_there_is(metrics: set[str]) -> None:
    named = {name for text in expressions() for name in METRIC.findall(text)}
    assert len(named) > 25
    assert named <= metrics, named - metrics


def test_the_readme_explains_every_figure_of_ours(metrics: set[str]) -> None:
    text = (FOLDER / "README.md").read_text().partition("## Figures of ours")[2]
    told = {
        f"dezky_audit_{name.partition('{')[0]}"
        for row in re.findall(r"^\| (`.*?`) \|", text, re.M)
        for name in re.findall(r"`([^`]+)`", row)
    }
    ours = {name for name in metrics if name.startswith("dezky_audit_")}
    assert told == ours - {"dezky_audit_scrape_errors"}


def test_every_kind_of_alarm_is_an_alert() -> None:
    (evidence,) = (rule for rule in rules() if rule["alert"] == "DezkyAuditEvidenceAlarm")
    (others,) = (rule for rule in rules() if rule["alert"] == "DezkyAuditAlarm")
    (kinds,) = re.findall(r'kind=~"([a-z_|]+)"', evidence["expr"])
    assert f'kind!~"{kinds}"' in others["expr"]
    assert set(kinds.split("|")) < set(Alarm.Kind.values)


def test_every_rule_says_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook"}
        assert notes["runbook"] == "docs/operate.md#alarms"
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["for"]
    assert re.search(r"^## Alarms$", (ROOT / "docs/operate.md").read_text(), re.M)


def test_every_rule_has_a_test_in_which_it_fires() -> None:
    fire = set()
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for expected in test["promql_expr_test"]:
            for sample in expected["exp_samples"]:
                fire |= set(re.findall(r'alertname="(\w+)"', sample["labels"]))
    assert fire == {rule["alert"] for rule in rules()}


def test_prometheus_is_told_the_name_that_the_rules_know() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    assert (scrape["job_name"], scrape["metrics_path"]) == (JOB, "/metrics")
    assert scrape["authorization"] == {"credentials_file": "/etc/prometheus/dezky-audit-token"}
    assert config["rule_files"] == [RULES.name]
    assert set(re.findall(r'job="(.*?)"', RULES.read_text())) == {JOB}


def test_the_dashboard_can_be_imported() -> None:
    panels = dashboard()["panels"]
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == ["State", "Archive", "Verification", "HTTP"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & mine, panel["title"]
        cells |= mine
        if panel["type"] != "row":
            assert panel["targets"]
            assert panel["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (["check", "rules"], RULES),
        (["test", "rules"], TESTS),
        (["check", "config", "--syntax-only"], FOLDER / "prometheus.yml"),
    ],
    ids=["rules", "tests", "config"],
)
def test_promtool_agrees(command: list[str], file: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH: it is in Debian's package prometheus")
    done = subprocess.run(
        [promtool, *command, file.name],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
