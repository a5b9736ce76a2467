"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import prunec.calibration
import prunec.compiler
import prunec.passes
import prunec.runtime

PACKAGES = (prunec.passes, prunec.runtime, prunec.calibration, prunec.compiler)
MODULES = [
    module.name for package in PACKAGES for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]
FINDER = doctest.DocTestFinder()


def examples(name: str) -> list[doctest.DocTest]:
    return [test for test in FINDER.find(importlib.import_module(name)) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runner = doctest.DocTestRunner()
    for test in examples(name):
        runner.run(test)
    assert not runner.summarize().failed, capsys.readouterr().out


def test_modules_and_their_examples_are_found() -> None:
    assert {"prunec.passes.rules.reshaping", "prunec.compiler.cli.main"} <= set(MODULES)
    assert examples("prunec.passes.rules.reshaping")
