"""The list of guards that can be taken out one by one is true of the code as it is."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def guards() -> list[Any]:
    path = ROOT / "scripts/check_guards.py"
    spec = importlib.util.spec_from_file_location("check_guards", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return list(module.GUARDS)


@pytest.mark.parametrize("guard", guards(), ids=lambda guard: guard.name)
def test_the_guard_is_in_the_code_once_and_its_test_is_there(guard: Any) -> None:
    code = (ROOT / guard.file).read_text(encoding="utf-8")
    assert code.count(guard.code) == 1
    file, _, test = guard.test.partition("::")
    name = re.sub(r"\[.*", "", test)
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
