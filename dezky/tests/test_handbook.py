"""The handbook has each sentence with which a log or a checkpoint refuses, and each alarm."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.models import Alarm

ROOT = Path(__file__).parents[2]
HANDBOOK = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
MODULES = ("anchors.py", "catchup.py", "checkpoints.py", "log/state.py")
SHORTEST = 16  # characters of a quotation that tell a sentence from others


def plain(text: str) -> str:
    """Return a sentence, or a quotation, with one sign for whatever stands in it for a name."""
    text = re.sub(r"\b[NM]\b", "…", " ".join(text.split()))
    return re.sub(r"(?i)\b(the )?(checkpoint|seq) (?=…)", "", text)


def literal(node: ast.expr) -> str:
    """Return the text of an expression, with … for what is known only when it is raised."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(literal, node.values))
    if isinstance(node, ast.BinOp):
        return literal(node.left) + literal(node.right)
    return "…"


def sentences() -> Iterator[tuple[str, str]]:
    """Yield module and sentence of each error that is raised with one."""
    for module in MODULES:
        tree = ast.parse((ROOT / "audit" / module).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                yield module, literal(node.exc.args[0])


def quotations() -> set[str]:
    """Return what the tables for the night say that an error says."""
    night = HANDBOOK.partition("## At 3 a.m.")[2].partition("## System checks")[0]
    cells = re.findall(r"^\| (.*?) \| ", night, re.MULTILINE)
    found = {plain(text).strip("… ") for cell in cells for text in re.findall("`([^`]+)`", cell)}
    return {text for text in found if len(text) >= SHORTEST}


def test_there_are_sentences_and_quotations() -> None:
    assert len(list(sentences())) > 20
    assert len(quotations()) > 40


@pytest.mark.parametrize(("module", "sentence"), list(sentences()), ids=lambda value: value[:60])
def test_it_is_in_the_handbook(module: str, sentence: str) -> None:
    assert any(text in plain(sentence) for text in quotations()), sentence


def test_every_kind_of_alarm_is_there_with_the_words_that_people_see() -> None:
    section = HANDBOOK.partition("\n### Kinds\n")[2].partition("\n### ")[0]
    found = re.findall(r"^\| (\*\*)?`(\w+)`(?:\*\*)?(?: \(\*(.+?)\*\))? \|", section, re.MULTILINE)
    assert {code: words or code for _, code, words in found} == {
        str(kind): str(kind.label).lower() for kind in Alarm.Kind
    }
    assert {code for bold, code, _ in found if bold} == set(Alarm.GRAVE)
