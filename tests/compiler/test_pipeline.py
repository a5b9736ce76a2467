import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.compiler.pipeline.own_steps import OWN_STEPS, TAIL, step_kind
from prunec.compiler.pipeline.pipeline import Pipeline, Repeat, Step, make_step, parse_pipeline
from prunec.compiler.pipeline.recipe import from_recipe
from prunec.compiler.recovery.recover_options import Recover
from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.passes.notation import parse_items, print_item
from prunec.passes.permute import Permute
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify
from prunec.runtime.target import Target
from tests.plugins.install import installed

GLOBS = st.text(min_size=1, max_size=12)
RATIOS = st.floats(0, 0.99)
POSITIVE = st.floats(1, 1e6)


def _pruning(draw: st.DrawFn) -> PruneFilters:
    by_speedup = draw(st.booleans())
    return PruneFilters(
        ratio=None if by_speedup else draw(RATIOS | st.dictionaries(GLOBS, RATIOS, min_size=1, max_size=3)),
        speedup=draw(POSITIVE) if by_speedup else None,
        criterion=draw(st.sampled_from(["l1", "l2", "random"])),
        round_to=draw(st.integers(1, 64)),
        residual_streams=draw(st.booleans()),
        inexact_groups=draw(st.sampled_from(["prune", "freeze"])),
        ignore=tuple(draw(st.lists(GLOBS, max_size=3))),
        freeze=tuple(draw(st.lists(GLOBS, max_size=2))),
    )


@st.composite
def steps(draw: st.DrawFn) -> Step:
    kind = draw(st.sampled_from(["prune-filters", "recover"]))
    if kind == "prune-filters":
        return Step(kind, _pruning(draw))
    options = Recover(
        epochs=draw(st.integers(2, 100)),
        schedule=draw(st.sampled_from(["cosine:0.02", "constant:0.1", "step:0=1e-2,1=1e-3"])),
        distill=draw(st.floats(0, 100)),
        nesterov=draw(st.booleans()),
        keep=draw(st.sampled_from(["best", "last"])),
    )
    return Step(kind, options)


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """Any options; the order is made legal by a recover at the end."""
    body = draw(st.lists(steps(), min_size=1, max_size=3))
    repeated = [Repeat(draw(st.integers(1, 4)), tuple(body))] if draw(st.booleans()) else body
    masks = [Step("sparsify", Sparsify(ignore=tuple(draw(st.lists(GLOBS, max_size=2)))))]
    return Pipeline((*repeated, *masks, Step("recover", Recover(epochs=1))))


@given(pipelines())
def test_text_form_round_trips(pipeline: Pipeline) -> None:
    parsed = parse_pipeline(str(pipeline))
    assert parsed == pipeline
    assert str(parsed) == str(pipeline)


JSON = st.recursive(
    st.text(max_size=8), lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=5), c, max_size=3)
)


@given(st.text(min_size=1, max_size=6, alphabet="abc-_1"), st.dictionaries(st.text(max_size=6), JSON, max_size=4))
def test_any_tree_of_text_survives_printing(name: str, options: dict[str, Any]) -> None:
    (item,) = parse_items(print_item(name, options))
    assert (item.name, item.options) == (name, options)


@given(st.text(max_size=40))
def test_any_text_parses_or_is_a_usage_error(text: str) -> None:
    try:
        pipeline = parse_pipeline(text)
    except UsageError:
        return
    assert parse_pipeline(str(pipeline)) == pipeline


def test_the_documented_form() -> None:
    text = 'prune-filters{speedup=2.0,criterion=l1} sparsify recover{epochs=30,schedule="step:0=1e-2,10=1e-3"}'
    pipeline = parse_pipeline(text)
    assert [step.name for step in pipeline.steps] == ["prune-filters", "sparsify", "recover"]
    assert pipeline.steps[0].options == PruneFilters(speedup=2.0)
    assert pipeline.steps[2].options == Recover(epochs=30, schedule="step:0=1e-2,10=1e-3")
    # What equals the default isn't printed.
    assert str(pipeline) == 'prune-filters{speedup=2.0} sparsify recover{epochs=30,schedule="step:0=1e-2,10=1e-3"}'


def test_hyphens_stand_for_underscores_and_values_are_typed() -> None:
    text = 'prune-filters{ratio={"blocks.*"=0.5,"*.conv1"=0.3},round-to=8,residual-streams=false,ignore=["a","b"]}'
    options = parse_pipeline(text).steps[0].options
    assert options == PruneFilters(
        ratio={"blocks.*": 0.5, "*.conv1": 0.3}, round_to=8, residual_streams=False, ignore=("a", "b")
    )
    assert list(options.ratio) == ["blocks.*", "*.conv1"]  # the last match counts: the order is part of it


def test_repeat_expands_when_run_and_stays_in_the_text() -> None:
    text = "repeat{n=3}(prune-filters{ratio=0.2} recover{epochs=2})"
    pipeline = parse_pipeline(text)
    assert [step.name for step in pipeline.steps] == ["prune-filters", "recover"] * 3
    assert str(pipeline) == text


def test_the_end_of_every_compile_may_be_written() -> None:
    assert parse_pipeline("sparsify export build measure") == parse_pipeline("sparsify")
    assert parse_pipeline("sparsify export measure") == parse_pipeline("sparsify")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune-filtres{ratio=0.5}", "Did you mean 'prune-filters'"),
        ("prune-filters{ratoi=0.5}", "Did you mean 'ratio'"),
        ("prune-filters{ratio=half}", "expected a number"),
        ("prune-filters{ratio=1.0}", r"outside \[0, 1\)"),
        ("prune-filters{ratio=-0.1}", r"outside \[0, 1\)"),
        ("prune-filters{ratio=0.5,ratio=0.6}", "given twice"),
        ("prune-filters", "either a ratio or goals"),
        ("prune-filters{ratio=0.5", "expected ','"),
        ("prune-filters{ratio=0.5}}", "expected the name of a step"),
        ('prune-filters{ignore=["a]}', "quote is not closed"),
        ("prune-filters{ratio=0.5,inexact_groups=maybe}", "'prune' or 'freeze'"),
        ("recover", "needs a value for epochs"),
        ("recover{epochs=2.5}", "expected a whole number"),
        ("recover{epochs=3,nesterov=perhaps}", "expected true or false"),
        ("repeat(sparsify)", "repeat takes one option"),
        ("repeat{n=0}(sparsify)", "at least 1"),
        ("repeat{n=2}", r"expected '\('"),
        ("build export", "in this order"),
        ("export sparsify", "come last"),
        ("export{x=1}", "takes no options"),
    ],
)
def test_wrong_text_is_explained(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_pipeline(text)


@pytest.mark.parametrize(
    "text",
    [
        "sparsify prune-filters{ratio=0.5}",
        "permute prune-filters{ratio=0.5}",
        "sparsify permute",
        "prune-filters{ratio=0.5} fold-parameters",
        "prune-filters{ratio=0.2} sparsify prune-filters{ratio=0.2} sparsify",
        "recover{epochs=1} prune-filters{ratio=0.5}",
        "prune-filters{ratio=0.5} recover{epochs=1} sparsify",
        "repeat{n=2}(prune-filters{ratio=0.2} sparsify recover{epochs=1})",
    ],
)
def test_a_wrong_order_is_refused_with_its_reason(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_pipeline(text)
    assert any(rule.reason in caught.value.message for kind in OWN_STEPS.values() for rule in kind.after)


OPTIONS = {"prune-filters": {"ratio": 0.5}, "decompose": {"speedup": 1.5}, "recover": {"epochs": 1}}


def own_step(name: str) -> Step:
    return make_step(name, OPTIONS.get(name, {}))


def test_every_rule_of_the_order_binds_objects_as_text() -> None:
    for kind in OWN_STEPS.values():
        for rule in kind.after:
            assert len(Pipeline((own_step(rule.step), own_step(kind.name))).steps) == 2
            with pytest.raises(UsageError, match=f"Put {rule.step} before {kind.name}"):
                _ = Pipeline((own_step(kind.name), own_step(rule.step))).steps
            with pytest.raises(UsageError):
                _ = Pipeline((Repeat(2, (own_step(rule.step), own_step(kind.name))), own_step(rule.step))).steps


def test_every_own_step_is_a_frozen_dataclass_of_that_name_without_torch() -> None:
    for name, kind in OWN_STEPS.items():
        options = kind.options_class()
        assert dataclasses.is_dataclass(options)
        assert options.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert (kind.name, options.name) == (name, name)  # type: ignore[attr-defined]
        assert callable(kind.runner())
    assert not set(TAIL) & OWN_STEPS.keys()
    code = (
        "import sys; from prunec.compiler.pipeline import parse_pipeline; "
        "parse_pipeline('fold-parameters prune-filters{ratio=0.5} permute sparsify re-estimate-batchnorm "
        "recover{epochs=3,schedule=cosine:0.1}'); assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr == ""


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pipeline([own_step("sparsify")]), "tuple of Step and Repeat objects"),  # type: ignore[arg-type]
        (lambda: Pipeline(("sparsify",)), "tuple of Step and Repeat objects"),  # type: ignore[arg-type]
        (lambda: Repeat(2, [own_step("sparsify")]), "tuple of Step and Repeat objects"),  # type: ignore[arg-type]
        (lambda: Repeat(2.0, (own_step("sparsify"),)), r"at least 1, got 2\.0"),  # type: ignore[arg-type]
        (lambda: Repeat(True, (own_step("sparsify"),)), "at least 1, got True"),
        (lambda: Step("sparsify", Permute()), "sparsify takes options of Sparsify, got Permute"),
        (lambda: Step("sparsify", None), "sparsify takes options of Sparsify, got None"),
        (lambda: Step("sparsfy", Sparsify()), "has no step 'sparsfy'"),
        (lambda: Step(None, Sparsify()), "has no step None"),  # type: ignore[arg-type]
    ],
)
def test_objects_of_wrong_types_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


ODD = "tests.plugins.odd_step:"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "odd-label",
            "has the label 'dense' for its accuracy; expected one of pruned, decomposed, sparse, reestimated",
        ),
        ("no-label", "has the label 'mine'"),
        ("unmeasured", "has the label 'pruned' for its accuracy; .*, and a measurement"),
        ("lost", "has the place 'nowhere'; expected one of fold-parameters, "),
        ("repeat", "has a name that pipelines can't have for a step"),
        ("build", "has a name that pipelines can't have for a step"),
        ("two words", "has a name that pipelines can't have for a step"),
        ("unordered", r"has an order that isn't told by After\(...\)"),
        ("no-step", "holds 5; expected a StepKind"),
    ],
)
def test_a_plug_in_that_can_not_be_a_step_is_refused(tmp_path: Path, name: str, words: str) -> None:
    with installed(tmp_path, "prunec.steps", **{name: f"{ODD}{name}"}):
        with pytest.raises(MissingDependencyError, match=words):
            step_kind(name)
        with pytest.raises(MissingDependencyError, match=words):
            from_recipe({name: {}}, Target.parse("cpu"))


def test_a_plug_in_stands_before_its_place(tmp_path: Path) -> None:
    with installed(tmp_path, "prunec.steps", odd=f"{ODD}STEP"):
        pipeline = from_recipe({"odd": {"does": "x"}, "recover": {"epochs": 1}}, Target.parse("a100-2:4"))
        assert [step.name for step in pipeline.steps] == ["prune-filters", "permute", "sparsify", "odd", "recover"]


def test_what_a_step_needs_follows_from_its_options() -> None:
    def needs(text: str) -> str:
        (step,) = parse_pipeline(text).steps
        return step.kind.needs(step.options)

    assert needs("prune-filters{ratio=0.5}") == needs("permute") == needs("sparsify") == "nothing"
    assert needs("sparsify{criterion=wanda}") == needs("re-estimate-batchnorm") == "inputs"
    assert needs("recover{epochs=1}") == "labels"


def test_a_recipe_is_composed_for_its_target() -> None:
    tables = {"prune-filters": {"speedup": 2}, "recover": {"epochs": 3}, "sparsify": {"ignore": ["head"]}}
    sparse = from_recipe(tables, Target.parse("a100-2:4"))
    assert [step.name for step in sparse.steps] == ["prune-filters", "permute", "sparsify", "recover"]
    assert sparse.steps[0].options == PruneFilters(speedup=2.0, round_to=16, min_channels=8)
    assert sparse.steps[1].options == Permute(ignore=("head",))
    assert sparse.steps[2].options == Sparsify(ignore=("head",))
    dense = from_recipe(tables, Target.parse("a100"))
    assert [step.name for step in dense.steps] == ["prune-filters", "recover"]
    assert dense.steps[0].options.round_to == 8
    alone = from_recipe({}, Target.parse("a100-2:4"))
    assert [step.name for step in alone.steps] == ["prune-filters", "permute", "sparsify"]


def test_a_recipe_s_own_rounding_counts() -> None:
    table = {"ratio": 0.5, "round-to": 4, "min_channels": 1}
    options = from_recipe({"prune-filters": table}, Target.parse("cpu")).steps[0].options
    assert (options.round_to, options.min_channels) == (4, 1)
