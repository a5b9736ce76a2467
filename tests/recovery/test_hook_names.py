"""Training hooks as recipes name them, from packages that register them."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from prunec.calibration.data import Data
from prunec.compiler.pipeline import parse_pipeline
from prunec.compiler.recovery.hooks import load_hooks
from prunec.compiler.stages.driver import compile_model
from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.passes.plugins import plug_ins
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown
from tests.recovery import toy_hooks as toys
from tests.recovery.networks import OPTIONS, run, same, state

ENTRY_POINTS = """
[prunec.training_hooks]
film = tests.recovery.toy_hooks:Film
adversary = tests.recovery.toy_hooks:Adversary
broken = tests.recovery.no_such_module:Hook
function = tests.recovery.networks:network
"""


@pytest.fixture(autouse=True)
def plug_in_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that brings hooks."""
    package = tmp_path / "installed" / "toys-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(package.parent))
    plug_ins.cache_clear()
    yield
    plug_ins.cache_clear()


def test_text_becomes_hooks_in_its_order() -> None:
    assert load_hooks("adversary{size=0.25,learning-rate=2} film") == (toys.Adversary(0.25, 2.0), toys.Film())
    assert load_hooks("") == ()


def test_a_recipe_s_text_prints_back() -> None:
    text = 'recover{epochs=2,hooks="adversary{size=0.25} film"}'
    pipeline = parse_pipeline(text)
    assert str(pipeline) == text
    assert parse_pipeline(str(pipeline)) == pipeline
    objects = replace(pipeline.steps[0].options, hooks=(toys.Adversary(0.25), toys.Film()))
    assert str(replace(pipeline.steps[0], options=objects)) == text


@pytest.mark.parametrize(
    ("hooks", "error", "words"),
    [
        ("flim", UsageError, "no training hook 'flim'.\nDid you mean 'film'"),
        ("film{lst=1}", UsageError, "training hook film has no option 'lst'.\nDid you mean 'last'"),
        ("film{last=few}", UsageError, "training hook film: last is 'few': expected a whole number"),
        ("film{last=1", UsageError, "can't be read"),
        ("broken", MissingDependencyError, "training hook 'broken' of toys can't be imported"),
        ("function", UsageError, "'function' is no training hook"),
        ((3,), UsageError, "hooks must be text or training hooks, got 3"),
    ],
)
def test_what_is_no_hook_is_refused_with_the_recipe(hooks: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        replace(OPTIONS, hooks=hooks)
    assert words in str(caught.value)


def test_hooks_named_and_given_train_alike(program: Program, data: Data) -> None:
    named = run(program, data, replace(OPTIONS, hooks="adversary{size=0.25}"))
    given = run(program, data, replace(OPTIONS, hooks=(toys.Adversary(size=0.25),)))
    assert same(state(named.program), state(given.program))
    assert named.hooks[0].text == given.hooks[0].text == "adversary{size=0.25}"


def test_a_compile_runs_the_hooks_of_its_pipeline(program: Program, data: Data, tmp_path: Path) -> None:
    toys.Toy.started.clear()
    text = 'recover{epochs=3,schedule=constant:0.05,batch_size=32,hooks="film{last=2}"}'
    report = compile_model(program, target="cpu", pipeline=text, data=data, output=tmp_path / "out.bundle")
    assert not isinstance(report.recovery, Unknown)
    assert len(report.recovery.curve) == 2
    assert report.recovery.steps == 2 * 16
    assert text in report.pipeline
    assert toys.Toy.started[0].training.teacher is not None


def test_options_need_no_torch() -> None:
    code = (
        "import sys, typing; from prunec.compiler.recovery import Recover, TrainingHook;"
        "Recover(epochs=1); typing.get_type_hints(Recover); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
