"""The training hook that the documentation shows works as it is printed."""

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prunec.calibration.data import Data
from prunec.passes.program import Program
from tests.recovery.networks import OPTIONS, run

PAGES = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))


def test_the_documented_hook_trains(
    program: Program, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [block for page in PAGES for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)]
    (code,) = [block for block in blocks if "class Shrink(TrainingHook)" in block]
    path = tmp_path / "documented.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("documented", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "documented", module)
    spec.loader.exec_module(module)
    result = run(program, data, replace(OPTIONS, hooks=(module.Shrink(strength=0.05),)))
    assert result.hooks[0].text == "documented:Shrink{strength=0.05}"
    assert result.hooks[0].decided.keys() == {"0", "3"}
    assert all(isinstance(zeros, int) and zeros > 0 for zeros in result.hooks[0].decided.values())
