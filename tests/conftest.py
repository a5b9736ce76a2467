"""The same random state for every test, whatever ran before it; checks of what passes claim; golden files."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from prunec.compiler.facts import settings
from tests import cheap_exports, kept_results

# Every compile of a test checks after each step what the step claims.
settings.VERIFY_EACH = True
# Graphs are many small objects, among which Python looks for dead circles at every 700 new ones: a seventh of all time.
gc.set_threshold(50_000, 10, 10)
# What an example takes depends on what else the machine does.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing with them")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs where not their tests are asked for: the others compare with what the processor computes."""
    marks, places = config.option.markexpr.replace("not gpu", ""), config.args
    if "gpu" not in marks and not all("tests/gpu" in place for place in places):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_sessionstart() -> None:
    """Before tests import what it changes, and after pytest's own patches, which stay; on a GPU all is made anew."""
    if not os.environ.get("CUDA_VISIBLE_DEVICES", "0"):
        kept_results.keep_results()


def pytest_collection_finish() -> None:
    """Don't look among libraries and tests, which stay, for dead circles."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """pytest-randomly seeds Python's and NumPy's random numbers, and not torch's."""
    torch.manual_seed(0)
    cheap_exports.keep_what_exports_share()


@pytest.fixture
def exported_anew() -> Iterator[None]:
    """Capture and write equal networks each anew."""
    with kept_results.anew():
        yield


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
