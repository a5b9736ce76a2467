"""Criteria as objects and as text; what the steps accept, and what they do with what a criterion gives."""

import subprocess
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from prunec.passes import PruneFilters, Sparsify, check_oracle
from prunec.passes.coupling import analyse
from prunec.passes.criteria import CRITERIA, Evidence, GateGradient, criterion_text
from prunec.passes.criteria.catalogue import resolve
from prunec.passes.criteria.elements import Magnitude, SparseGPT, Wanda
from prunec.passes.criteria.filters import L1
from prunec.passes.errors import UsageError
from prunec.passes.filter_pruning import kept_units
from prunec.passes.notation import parse_items, print_item
from prunec.passes.options import changed_options, with_options
from prunec.passes.plugins import plug_ins
from prunec.passes.program import Program
from prunec.passes.two_four import is_two_four, two_four_mask
from tests.passes.checks import captured, images, normal
from tests.passes.criteria.plugins import Apoz, Both, Ends, FirstOrder, Louder, Refit, Snip


def program() -> Program:
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    return captured(nn.Sequential(*layers), normal(2, 3, 8, 8))


def same_tensors(a: Program, b: Program) -> bool:
    left, right = a.tensors(), b.tensors()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The criteria of `plugins`, registered by a distribution as any package would."""
    information = tmp_path / "others_criteria-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: others-criteria\nVersion: 1.0\n")
    names = {"first-order": "FirstOrder", "louder": "Louder", "both": "Both"}
    lines = [f"{name} = tests.passes.criteria.plugins:{cls}" for name, cls in names.items()]
    (information / "entry_points.txt").write_text("\n".join(["[prunec.criteria]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))
    plug_ins.cache_clear()
    yield
    plug_ins.cache_clear()


def test_own_criteria_are_known_by_name() -> None:
    assert {"l1", "l2", "random", "magnitude", "wanda", "sparsegpt", "taylor", "snip"} <= set(CRITERIA.names())
    for name in CRITERIA.own:
        criterion = resolve(name)
        assert criterion.name == name
        assert resolve(criterion) is criterion
        assert criterion_text(criterion) == criterion_text(name) == name


def test_a_plug_in_is_used_by_its_text(installed: None) -> None:
    text = "louder{factor=3.0}"
    by_text, by_object = (PruneFilters(ratio=0.5, criterion=c).run(program()) for c in (text, Louder(3.0)))
    assert same_tensors(by_text.program, by_object.program)
    assert "first-order" in CRITERIA.names()
    assert PruneFilters(ratio=0.5, criterion="first-order{absolute=true}").needs == {"gradients", "labels"}


def test_text_and_object_print_alike(installed: None) -> None:
    printed = print_item("prune-filters", changed_options(PruneFilters(ratio=0.5, criterion=Louder(3.0))))
    assert printed == 'prune-filters{ratio=0.5,criterion="louder{factor=3.0}"}'
    (item,) = parse_items(printed)
    again = with_options(PruneFilters, item.name, item.options)
    assert resolve(again.criterion) == Louder(3.0)
    assert criterion_text(again.criterion) == "louder{factor=3.0}"
    assert print_item("prune-filters", changed_options(PruneFilters(ratio=0.5, criterion=Louder()))) == (
        "prune-filters{ratio=0.5,criterion=louder}"
    )


@given(st.floats(1e-6, 1e6))
def test_any_option_survives_text(damping: float) -> None:
    assert resolve(criterion_text(SparseGPT(damping))) == SparseGPT(damping)


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        ("l3", r"There is no criterion 'l3'\.\nDid you mean 'l"),
        ("", "is not one name"),
        ("l1 l2", "is not one name"),
        ("l1{", "The criterion can't be read"),
        ("l1{a=1}", "criterion l1 has no option 'a'"),
        ("wanda", "wanda is not one of units.*\nIt is one of single weights, for sparsify"),
        (Wanda(), "wanda is not one of units"),
        (L1, "expected a name, or an object"),
        (len, "expected a name, or an object"),
    ],
)
def test_what_prune_filters_does_not_take(criterion: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PruneFilters(ratio=0.5, criterion=criterion)


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        ("l1", "l1 is not one of single weights.*\nIt is one of units of coupled groups, for prune-filters"),
        ("sparsegpt{damping=0}", "damping is 0"),
        ("wandda", "Did you mean 'wanda'"),
        (Ends(), "ends is not one of single weights"),
    ],
)
def test_what_sparsify_does_not_take(criterion: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Sparsify(criterion=criterion)


@pytest.mark.parametrize("name", ["louder", "l1", "two words"])
def test_an_object_of_an_unregistered_class_can_t_be_mistaken(name: str) -> None:
    """Its text names the class, whatever its name, and is refused where it is read."""

    class Mine(Louder):
        pass

    Mine.name = name
    Mine.__qualname__ = "Mine"
    options = PruneFilters(ratio=0.5, criterion=Mine(3.0))
    assert options.run(program()).modified
    text = criterion_text(Mine(3.0))
    assert text == f"{__name__}:Mine{{factor=3.0}}"
    (item,) = parse_items(print_item("prune-filters", changed_options(options)))
    assert item.options["criterion"] == text
    with pytest.raises(UsageError, match=r"Mine is an object of a class that isn't registered.*\nGive the object"):
        resolve(text)
    Mine.__qualname__ = "Mine {}"
    with pytest.raises(UsageError, match="has no text form"):
        criterion_text(Mine())


def test_a_name_of_two_packages_is_nobody_s(installed: None, tmp_path: Path) -> None:
    (tmp_path / "more-1.0.dist-info").mkdir()
    (tmp_path / "more-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: more\nVersion: 1.0\n")
    (tmp_path / "more-1.0.dist-info" / "entry_points.txt").write_text("[prunec.criteria]\nlouder = a:B\n")
    plug_ins.cache_clear()
    assert criterion_text(Louder()) == "tests.passes.criteria.plugins:Louder"


def test_only_frozen_dataclasses_are_criteria() -> None:
    class Plain:
        name, needs = "plain", frozenset({"weights"})

        def score(self, group: Any, evidence: Evidence) -> Any:
            return np.arange(group.count)

    with pytest.raises(UsageError, match="plain is no frozen dataclass"):
        PruneFilters(ratio=0.5, criterion=Plain())


def test_needs_are_words_and_cover_the_statistics() -> None:
    class Psychic(Both):
        needs = frozenset({"weights", "future"})

    class Understated(FirstOrder):
        needs = frozenset({"weights"})

    with pytest.raises(UsageError, match="needs future"):
        PruneFilters(ratio=0.5, criterion=Psychic())
    with pytest.raises(UsageError, match="must name 'gradients'"):
        PruneFilters(ratio=0.5, criterion=Understated())


def test_types_of_options_are_known_without_torch() -> None:
    code = (
        "import sys, typing; from prunec.passes import PruneFilters, Sparsify\n"
        "from prunec.passes.options import with_options\n"
        "for kind in (PruneFilters, Sparsify): typing.get_type_hints(kind)\n"
        "for text in ('l1', 'l2', 'random'): PruneFilters(ratio=0.5, criterion=text)\n"
        "for text in ('magnitude', 'wanda', 'sparsegpt{damping=0.1}'):\n"
        "    with_options(Sparsify, 'sparsify', {'criterion': text}).needs\n"
        "from prunec.passes.criteria.catalogue import CRITERIA, resolve\n"
        "for name in CRITERIA.own: resolve(name).needs\n"
        "found = [m for m in ('torch', 'numpy') if m in sys.modules]; assert not found, found"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "criterion" in typing.get_type_hints(PruneFilters)


@pytest.mark.parametrize("value", [3, ["l1"], {"name": "l1"}, True])
def test_a_table_gives_a_criterion_as_text(value: object) -> None:
    with pytest.raises(UsageError, match=r"criterion is .*expected text"):
        with_options(PruneFilters, "prune-filters", {"ratio": 0.5, "criterion": value})


def test_selected_units_stay() -> None:
    result = PruneFilters(ratio=0.5, criterion=Ends()).run(program())
    assert result.plan is not None
    assert result.plan.kept["0.weight"][0] == [0, 1, 2, 7]
    assert result.compensated is None


def test_compensation_gives_what_stays_new_values() -> None:
    dense = program()
    before = {name: tensor.clone() for name, tensor in dense.tensors().items()}
    plain, louder = (PruneFilters(ratio=0.5, criterion=Louder(factor)).run(dense) for factor in (1.0, 2.0))
    assert plain.plan == louder.plan
    assert plain.plan is not None
    old, new = plain.program.tensors(), louder.program.tensors()
    for name in old:
        factor = 2 if name in ("0.weight", "3.weight") else 1
        torch.testing.assert_close(new[name], factor * old[name])
        assert torch.equal(dense.tensors()[name], before[name])
        assert isinstance(new[name], nn.Parameter) == isinstance(old[name], nn.Parameter)
    report = check_oracle(dense, louder, images(dense))
    assert report.exact
    assert report.passed
    # It is not the dense program's values that the oracle holds it to.
    assert not check_oracle(dense, replace(louder, compensated=None), images(dense)).passed


def test_compensation_follows_the_groups_and_the_masks() -> None:
    """Each group sees the values of those before it; a masked weight stays masked; a tied tensor has one value."""

    class Adds(Louder):
        def compensate(self, group: Any, evidence: Evidence, kept: Any) -> Mapping[str, Tensor]:
            return {"3.weight": evidence.tensors["3.weight"] + 1}

    dense = Sparsify(ignore=("0", "5")).run(program()).program
    result = PruneFilters(ratio=0.25, criterion=Adds()).run(dense)
    assert result.compensated is not None
    mask = dense.masks["3.weight"]
    groups = len(analyse(dense).groups)
    assert groups == 2
    # The values of a group are masked before the next one sees them.
    expected = (dense.tensors()["3.weight"] + groups) * mask
    torch.testing.assert_close(result.compensated.tensors()["3.weight"], expected)
    assert not result.program.tensors()["3.weight"][~result.program.masks["3.weight"]].any()


@pytest.mark.parametrize(
    ("method", "given_back", "message"),
    [
        ("score", lambda group: np.zeros(group.count + 1), "expected a number for each of its 8 units"),
        ("score", lambda group: np.full(group.count, np.nan), "scores units 0, 1, 2, 3 and 4 more of .* by NaN"),
        ("score", lambda group: None, "expected a number for each"),
        ("score", lambda group: [[1], [1, 2]], "Wrong' of your code failed: ValueError"),
        ("score", lambda group: 1 / 0, "Wrong' of your code failed: ZeroDivisionError: division by zero"),
        ("select", lambda group: None, "expected 4 different units"),
        ("compensate", lambda group: None, "Wrong' of your code failed: TypeError"),
        ("compensate", lambda group: {"0.weight": np.zeros((8, 3, 3, 3))}, "gives ndarray for 0.weight"),
        ("compensate", lambda group: {"0.weight": torch.full((8, 3, 3, 3), torch.nan)}, "gives NaN in 0.weight"),
        ("score", lambda group: ["a"] * group.count, "expected a number for each"),
        ("select", lambda group: [0, 0, 1, 2], "expected 4 different units of 8"),
        ("select", lambda group: [0, 1, 2], "expected 4 different units"),
        ("select", lambda group: [0, 1, 2, 8], "expected 4 different units"),
        ("select", lambda group: [-1, 0, 1, 2], "expected 4 different units"),
        ("select", lambda group: [0.5, 1, 2, 3], "expected 4 different units"),
        ("compensate", lambda group: {"0.weight": torch.zeros(4, 3, 3, 3)}, "in its shape before pruning"),
        ("compensate", lambda group: {"9.weight": torch.zeros(1)}, "in its shape before pruning"),
    ],
)
def test_answers_that_make_no_sense(method: str, given_back: Callable[[Any], Any], message: str) -> None:
    class Wrong(Louder):
        pass

    setattr(Wrong, method, lambda self, group, evidence, *_: given_back(group))
    with pytest.raises(UsageError, match=message):
        PruneFilters(ratio=0.5, criterion=Wrong()).run(program())


@pytest.mark.parametrize("convert", [Tensor.bfloat16, Tensor.numpy, Tensor.tolist, Tensor.requires_grad_])
def test_scores_come_as_any_array(convert: Callable[[Tensor], Any]) -> None:
    class Scores(Both):
        def score(self, group: Any, evidence: Evidence) -> Any:
            return convert(torch.arange(float(group.count)))

    kept = PruneFilters(ratio=0.5, criterion=Scores()).run(program()).plan
    assert kept is not None
    assert kept.kept["0.weight"][0] == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("method", "given_back"),
    [
        ("score_elements", lambda weight: weight[:1]),
        ("score_elements", lambda weight: weight * torch.nan),
        ("score_elements", lambda weight: weight.numpy()),
        ("compensate_elements", lambda weight: weight * torch.nan),
        ("compensate_elements", lambda weight: weight),
        ("compensate_elements", lambda weight: weight[:1]),
    ],
)
def test_element_answers_that_make_no_sense(method: str, given_back: Callable[[Tensor], Any]) -> None:
    class Wrong(Refit):
        pass

    setattr(Wrong, method, lambda self, weight, evidence, *_: given_back(weight))
    with pytest.raises(UsageError, match=r"refit gives other .* for 3\.weight"):
        Sparsify(criterion=Wrong()).run(program())


def test_element_criteria_mask_and_compensate() -> None:
    dense = program()
    result = Sparsify(criterion=Refit(), ignore=("5",)).run(dense)
    weight, mask = dense.tensors()["3.weight"].detach(), result.program.masks["3.weight"]
    assert torch.equal(mask, two_four_mask(weight.abs()))
    new = result.program.tensors()["3.weight"].detach()
    assert is_two_four(new)
    torch.testing.assert_close(new.unflatten(1, (2, 4)).sum(2), weight.unflatten(1, (2, 4)).sum(2))
    smallest = Sparsify(criterion=Both()).run(dense).program.masks["3.weight"]
    assert not torch.equal(smallest, mask)
    assert torch.equal(
        Sparsify(criterion=Magnitude()).run(dense).program.masks["3.weight"],
        Sparsify().run(dense).program.masks["3.weight"],
    )


def test_a_criterion_of_both_kinds_serves_both_steps() -> None:
    kept = PruneFilters(ratio=0.5, criterion=Both()).run(program()).plan
    assert kept is not None
    assert kept.kept["0.weight"][0] == [4, 5, 6, 7]


@pytest.mark.parametrize("options", [PruneFilters(ratio=0.5, criterion=FirstOrder()), Sparsify(criterion=Snip())])
def test_data_are_asked_for(options: Any) -> None:
    assert "gradients" in options.needs
    with pytest.raises(UsageError, match=r"needs gradients.*on data, beyond the weights\.\nMeasure them with"):
        options.run(program())
    for plain in (PruneFilters(ratio=0.5), PruneFilters(ratio=0.5, criterion="random"), Sparsify()):
        assert plain.needs == frozenset()
    assert PruneFilters(ratio=0.5, criterion=Apoz()).needs == {"outputs"}
    assert Sparsify(criterion="sparsegpt").needs == {"inputs"}


def test_evidence_of_other_places_is_refused() -> None:
    evidence = Evidence({}, {(GateGradient(), "0"): torch.zeros(3)})
    group = analyse(program()).groups[0]
    with pytest.raises(UsageError, match="3 units of the group 0, which has 8"):
        evidence.of(GateGradient(), group)
    for statistic, place in ((GateGradient("mean"), "0"), (GateGradient(), "1"), (GateGradient(), None)):
        with pytest.raises(UsageError, match="wasn't measured"):
            evidence.of(statistic, place)
    with pytest.raises(UsageError, match="wasn't measured"):
        PruneFilters(ratio=0.5, criterion=FirstOrder()).run(program(), Evidence({}))


def test_the_highest_stay_and_of_equal_ones_the_first_go() -> None:
    group = analyse(program()).groups[0]

    class Fixed(Both):
        def score(self, group: Any, evidence: Evidence) -> Any:
            return np.array([5.0, 1, 1, 7, 1, 1, 2, 0])

    assert kept_units(Fixed(), group, Evidence({}), 4).tolist() == [0, 3, 5, 6]


def test_a_given_seed_counts_and_none_is_zero() -> None:
    def kept(seed: int | None) -> Any:
        plan = PruneFilters(ratio=0.5, criterion="random", seed=seed).run(program()).plan
        assert plan is not None
        return plan.kept

    assert kept(None) == kept(0) != kept(1)
