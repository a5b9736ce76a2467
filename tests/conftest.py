"""The same random state for every test, whatever ran before it; checks of what passes claim; golden files."""

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import hypothesis
import pytest
import torch

from prunec.compiler.facts import settings

# Every compile of a test checks after each step what the step claims.
settings.VERIFY_EACH = True
# What an example takes depends on what else the machine does.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")
#: The ONNX exporter of torch makes a registry of all its operators here, anew for every export.
EXPORTER_REGISTRY = "torch.onnx._internal.exporter._registration"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing with them")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs where not their tests are asked for: the others compare with what the processor computes."""
    marks, places = config.option.markexpr.replace("not gpu", ""), config.args
    if "gpu" not in marks and not all("tests/gpu" in place for place in places):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """pytest-randomly seeds Python's and NumPy's random numbers, and not torch's."""
    torch.manual_seed(0)
    keep_registries()


def keep_registries() -> None:
    """Let the exporter copy its registry of an opset where it would make it again: a quarter of a small compile."""
    module = sys.modules.get(EXPORTER_REGISTRY)
    if module is None or hasattr(module, "kept_by_tests"):
        return
    kind = module.ONNXRegistry
    module.kept_by_tests = made = cache(kind.from_torchlib)

    def copied(*opset: int, **named: int) -> object:
        registry = kind()
        registry._opset_version = made(*opset, **named).opset_version
        registry.functions = {name: list(functions) for name, functions in made(*opset, **named).functions.items()}
        return registry

    kind.from_torchlib = staticmethod(copied)


@pytest.fixture
def check_golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with a file in the folder ``golden`` beside the test, or rewrite the file when asked to."""

    def check(name: str, text: str) -> None:
        path = Path(request.path.parent, "golden", name)
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert text == path.read_text(), f"{path} differs: read the difference, then run with --update-golden"

    return check
