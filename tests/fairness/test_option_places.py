"""Every option has a place in a comparison, and no pair of reports compares at a level that the place forbids."""

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.calibration.batchnorm import ReestimateBatchNorm
from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.compiler import Settings
from prunec.compiler.fairness.comparison_levels import LEVELS, compare_pair
from prunec.compiler.fairness.option_places import DATA_PLACES, SETTINGS_PLACES, STEP_PLACES
from prunec.compiler.fairness.report_cards import report_card
from prunec.compiler.pipeline.own_steps import OWN_STEPS
from prunec.compiler.recovery.hooks import HOOKS, TrainingHook
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.report.ledger_part import LedgerEntryPart
from prunec.compiler.report.report import Report
from prunec.compiler.report.training_parts import DataPart
from prunec.passes.criteria.catalogue import CRITERIA
from prunec.passes.fold import FoldParameters
from prunec.passes.permute import Permute
from prunec.passes.places import (
    BASE,
    COMPRESSION,
    METHOD,
    PRUNING,
    RETRAINING,
    TASK,
    has_no_effect,
    is_place,
    without_effect,
)
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify
from prunec.passes.unknown import Unknown
from tests.fairness.synthetic import booked, entry, pretrained, report_of

ORDER = ["S0", *LEVELS]
#: The level of two runs that differ in one option of a place, and in nothing else.
LEVEL_BY_PLACE = {TASK: "S0", COMPRESSION: "S0", BASE: "S1", RETRAINING: "S3.1", PRUNING: "S4.1", METHOD: "S4.2"}
RETRAINED = Recover(epochs=4, schedule="step:0=0.1,2=0.01", optimizer="sgd", momentum=0.9, weight_decay=5e-4)
PRUNED, SPARSE = PruneFilters(ratio=0.5), Sparsify(criterion="wanda")
STEPS = (FoldParameters(), PRUNED, Permute(), SPARSE, ReestimateBatchNorm())


def level(a: Report, b: Report) -> str:
    pair = compare_pair(report_card(a, "a"), report_card(b, "b"))
    assert ORDER.index(pair.level) <= ORDER.index(pair.at_most)
    if pair.level not in ("S4.2",):
        assert pair.differs, "what differs is told"
    return pair.level


def run(*trained: LedgerEntryPart, steps: tuple[Any, ...] = STEPS, **changes: Any) -> Report:
    return report_of(pretrained(), *map(booked, steps), *trained, **changes)


def test_a_run_compares_with_itself_at_the_highest_level() -> None:
    pair = compare_pair(report_card(run(booked(RETRAINED)), "a"), report_card(run(booked(RETRAINED)), "b"))
    assert (pair.level, pair.tags, pair.differs, pair.missing) == ("S4.2", ("SX-A", "SX-B"), (), ())


@pytest.mark.parametrize("step", OWN_STEPS)
def test_every_option_of_every_step_has_a_place(step: str) -> None:
    places = STEP_PLACES[step]
    options = {field.name for field in dataclasses.fields(OWN_STEPS[step].options_class())}
    of_the_project = {"loss", "augment", "split", "processes", "early_sha256"} if step == "recover" else set()
    assert options | of_the_project | {step} == places.keys(), "the step's name is the place of its presence"
    assert all(map(is_place, places.values()))


@pytest.mark.parametrize(("places", "options"), [(DATA_PLACES, DataConfig), (SETTINGS_PLACES, Settings)])
def test_every_option_of_data_and_settings_has_a_place(places: Mapping[str, str], options: type[Any]) -> None:
    assert {field.name for field in dataclasses.fields(options)} == places.keys()
    assert all(map(is_place, places.values()))


@pytest.mark.parametrize("location", [*CRITERIA.own.values(), *HOOKS.own.values()])
def test_own_criteria_and_hooks_state_the_places_of_their_options(location: str) -> None:
    module, _, name = location.partition(":")
    kind = getattr(importlib.import_module(module), name)
    places = getattr(kind, "places", {})
    assert {field.name for field in dataclasses.fields(kind)} == places.keys()
    assert all(map(is_place, places.values()))


def test_a_place_without_effect_needs_a_reason() -> None:
    assert has_no_effect(without_effect("it prints"))
    assert not is_place("without effect: ")
    assert not is_place("elsewhere")
    with pytest.raises(ValueError, match="reason"):
        without_effect("")


def another(value: Any) -> Any:
    """A value of the same kind that no other run has."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return ["another"] if isinstance(value, list) else "another"


def expected(place: str) -> str:
    return "S4.2" if has_no_effect(place) else LEVEL_BY_PLACE[place]


OF_STEPS = [(step, option) for step in STEPS for option in booked(step).options]


@pytest.mark.parametrize(("step", "option"), OF_STEPS, ids=lambda value: str(getattr(value, "name", value)))
def test_one_option_of_one_step(step: Any, option: str) -> None:
    """All options of all steps but training; values are such as no other run has."""
    changed = another(booked(step).options[option])
    other = report_of(
        pretrained(), *(booked(s, **({option: changed} if s is step else {})) for s in STEPS), booked(RETRAINED)
    )
    found, place = level(run(booked(RETRAINED)), other), STEP_PLACES[step.name][option]
    if step.name == ReestimateBatchNorm.name or (step is SPARSE and option == "samples"):
        assert found == "S3.2", "they take samples, which count as epochs of pruning"
    else:
        assert found == expected(place)


#: Options of a training that decide how long it is and by which rates: the value, and the level of two runs that differ
#: in it, in the retraining and in a training before pruning.
BY_RATES = {"epochs": (6, "S2", "S3.2"), "schedule": ("constant:0.1", "S3.1", "S4.1"), "warmup": (0.5, "S3.1", "S4.1")}


def changed(option: str) -> tuple[Any, str, str]:
    """Another value of an option of a training, and the two levels."""
    if option in BY_RATES:
        return BY_RATES[option]
    is_idle = has_no_effect(STEP_PLACES["recover"][option])
    return another(booked(RETRAINED).options[option]), *(("S4.2", "S4.2") if is_idle else ("S3.1", "S4.1"))


@pytest.mark.parametrize("option", booked(RETRAINED).options)
def test_one_option_of_the_retraining(option: str) -> None:
    value, allowed, _ = changed(option)
    assert level(run(booked(RETRAINED)), run(booked(RETRAINED, **{option: value}))) == allowed


@pytest.mark.parametrize("option", booked(RETRAINED).options)
def test_one_option_of_a_training_before_pruning(option: str) -> None:
    value, _, allowed = changed(option)
    reports = [
        report_of(pretrained(), booked(RETRAINED, **options), booked(PRUNED), booked(RETRAINED))
        for options in ({}, {option: value})
    ]
    assert level(*reports) == allowed


@dataclasses.dataclass(frozen=True)
class Hook(TrainingHook):
    """A hook that states the place of one option and not that of another."""

    name: ClassVar[str] = "hook"
    places: ClassVar[Mapping[str, str]] = {"strength": RETRAINING, "progress": without_effect("it prints")}

    strength: float = 1.0
    progress: bool = False
    forgotten: int = 0

    def start(self, training: Any) -> Any:
        raise NotImplementedError


def hooked(*hooks: TrainingHook) -> LedgerEntryPart:
    return booked(dataclasses.replace(RETRAINED, hooks=hooks))


@pytest.mark.parametrize(
    ("hook", "after", "before"),
    [(Hook(strength=2), "S3.1", "S4.2"), (Hook(progress=True), "S4.2", "S4.2"), (Hook(forgotten=1), "S0", "S0")],
)
def test_hooks_belong_to_the_retraining_or_to_the_method(hook: Hook, after: str, before: str) -> None:
    assert level(run(hooked(Hook())), run(hooked(hook))) == after
    early = [report_of(pretrained(), hooked(h), booked(PRUNED), booked(RETRAINED)) for h in (Hook(), hook)]
    assert level(*early) == before


def test_a_hook_that_only_one_run_has() -> None:
    with_hook = hooked(Hook())
    assert level(run(booked(RETRAINED)), run(with_hook)) == "S0", "an option of it states no place"
    stated = with_hook.model_copy(update={"options": {k: v for k, v in with_hook.options.items() if "forg" not in k}})
    assert level(run(booked(RETRAINED)), run(stated)) == "S3.1"
    half = run(stated.model_copy(update={"epochs": 2.0, "learning_rates": stated.learning_rates[:1]}))  # type: ignore[index]
    assert level(half, run(stated)) == "S2"


def test_a_criterion_of_a_plug_in_states_its_places_or_differs() -> None:
    def pruned(places: dict[str, str], order: int) -> Report:
        options = booked(PRUNED).options | {"criterion": "mine", "criterion.order": order}
        return report_of(pretrained(), entry("prune-filters", options, places=places), booked(RETRAINED))

    assert level(pruned({}, 1), pruned({}, 1)) == "S4.2"
    assert level(pruned({}, 1), pruned({}, 2)) == "S0"
    assert level(pruned({"criterion.order": METHOD}, 1), pruned({"criterion.order": METHOD}, 2)) == "S4.2"


@pytest.mark.parametrize(
    ("places", "found"),
    [
        ({}, "S0"),
        ({"mine": METHOD}, "S0"),
        ({"mine": METHOD, "size": METHOD}, "S4.2"),
        ({"mine": RETRAINING, "size": METHOD}, "S3.1"),
        ({"mine": COMPRESSION, "size": METHOD}, "S0"),
        ({"mine": TASK, "size": METHOD}, "S0"),
        ({"mine": BASE, "size": METHOD}, "S1"),
        (dict.fromkeys(("mine", "size"), without_effect("it measures")), "S4.2"),
    ],
)
def test_a_step_of_a_plug_in_that_only_one_run_has(places: dict[str, str], found: str) -> None:
    step = entry("mine", {"size": 1}, places=places)
    assert level(run(booked(RETRAINED)), run(booked(RETRAINED), step)) == found


@pytest.mark.parametrize("place", [TASK, COMPRESSION, BASE, PRUNING, METHOD, without_effect("it prints")])
def test_an_option_of_a_plug_ins_step_at_every_place(place: str) -> None:
    def mine(size: int) -> Report:
        step = entry("mine", {"size": size}, places={"mine": METHOD, "size": place})
        return report_of(pretrained(), booked(PRUNED), step, booked(RETRAINED))

    assert level(mine(1), mine(1)) == "S4.2"
    assert level(mine(1), mine(2)) == expected(place)


@pytest.mark.parametrize("place", [TASK, COMPRESSION, BASE])
def test_a_hook_may_say_that_an_option_is_more_than_a_way_of_training(place: str) -> None:
    def of(strength: float, *, is_early: bool) -> Report:
        step = hooked(Hook(strength=strength))
        stated = step.model_copy(update={"places": step.places | {"hooks.0.strength": place}})
        trained = (stated, booked(PRUNED), booked(RETRAINED)) if is_early else (booked(PRUNED), stated)
        return report_of(pretrained(), *trained)

    for is_early in (False, True):
        assert level(of(1, is_early=is_early), of(2, is_early=is_early)) == LEVEL_BY_PLACE[place]


@pytest.mark.parametrize(
    ("step", "option", "found"),
    [(PRUNED, "attention", "S0"), (RETRAINED, "momentum", "S3.1"), (RETRAINED, "hooks.0.strength", "S3.1")],
)
def test_an_option_that_a_ledger_could_not_hold_is_unknown(step: Any, option: str, found: str) -> None:
    """What isn't known of both runs is not equal."""
    entries = [booked(PRUNED), hooked(Hook())]
    position = 0 if step is PRUNED else 1
    options = entries[position].options | {option: Unknown("JSON has no form for it.")}
    entries[position] = entries[position].model_copy(update={"options": options})
    pair = compare_pair(*(report_card(report_of(pretrained(), *entries), name) for name in "ab"))
    assert (pair.level, pair.at_most) == (found, "S4.2")
    assert [field.rpartition(".")[2] for field in pair.missing] == [option.rpartition(".")[2]] * 2


def test_weights_that_were_rewound_to_are_an_option_of_the_retraining() -> None:
    def rewound(digits: str) -> Report:
        return run(booked(RETRAINED, early="early.pt", early_sha256=digits * 64))

    assert level(rewound("0"), rewound("0")) == "S4.2"
    assert level(rewound("0"), rewound("f")) == "S3.1"
    assert level(rewound("0"), run(booked(RETRAINED))) == "S3.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    images = (generator.normal(size=(100, 1, 8, 8)) * 40 + 128).clip(0, 255).astype("u1")
    labels = np.arange(100) % 4
    for name in ("d", "copy"):
        np.savez(where / f"{name}.npz", train_images=images[:80], train_labels=labels[:80], test_images=images[80:],
                 test_labels=labels[80:])  # fmt: skip
    return where


BASE_DATA = DataConfig("npz:d.npz", "npz:d.npz", mean=(0.5,), std=(0.2,), augment=("flip",))
OTHER_DATA: dict[str, Any] = {
    "train": "npz:copy.npz", "test": "npz:copy.npz", "mean": (0.4,), "std": (0.3,), "augment": (),
    "validation_fraction": 0.2, "limit_train": 40, "limit_test": 10,
    "split_seed": 1, "name": "another",
}  # fmt: skip


def of_data(config: DataConfig, folder: Path) -> Report:
    data: Data = load_data(config, folder, 0)
    sizes = {"train_images": len(data.train), "validation_images": len(data.validation), "test_images": len(data.test)}
    return run(booked(RETRAINED, augment=data.augment), data=DataPart.of(data, **sizes))


@pytest.mark.parametrize("option", OTHER_DATA)
def test_one_option_of_the_data(folder: Path, option: str) -> None:
    other = dataclasses.replace(BASE_DATA, **{option: OTHER_DATA[option]})
    assert level(of_data(BASE_DATA, folder), of_data(other, folder)) == expected(DATA_PLACES[option])


def test_other_dense_weights_or_another_training_of_them_are_another_base() -> None:
    one = run(booked(RETRAINED))
    weights = one.model_copy(update={"model": one.model.model_copy(update={"source_sha256": "f" * 64})})
    assert level(one, weights) == "S1"
    assert level(one, report_of(pretrained(6), *map(booked, STEPS), booked(RETRAINED))) == "S1"
    assert level(one, report_of(pretrained(5, "constant:0.2"), *map(booked, STEPS), booked(RETRAINED))) == "S1"


SHAPES: tuple[tuple[Any, ...], ...] = (
    (PRUNED, RETRAINED),
    (PRUNED, Permute(), SPARSE, RETRAINED),
    (RETRAINED, PRUNED, RETRAINED),
    (PRUNED, RETRAINED, PRUNED, RETRAINED),
    (PRUNED, RETRAINED, SPARSE, ReestimateBatchNorm(), RETRAINED),
    (RETRAINED, PRUNED, ReestimateBatchNorm(), RETRAINED),
)


@given(st.data())
def test_no_change_of_one_option_compares_at_a_level_that_it_forbids(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from(SHAPES))
    position = data.draw(st.sampled_from(range(len(shape))))
    step = shape[position]
    option = data.draw(st.sampled_from([*booked(step).options]))
    is_pruned = [isinstance(earlier, PruneFilters | Sparsify) for earlier in shape[:position]]
    if isinstance(step, Recover):
        value, after, before = changed(option)
        allowed = after if any(is_pruned) else before
    elif isinstance(step, ReestimateBatchNorm):  # before the retraining it belongs to the pruning
        is_retrained = any(isinstance(one, Recover) and any(is_pruned[:at]) for at, one in enumerate(shape[:position]))
        value, allowed = another(booked(step).options[option]), "S3.1" if is_retrained else "S3.2"
    else:
        value, allowed = another(booked(step).options[option]), expected(STEP_PLACES[step.name][option])
    unlike = [booked(one, **({option: value} if at == position else {})) for at, one in enumerate(shape)]
    one, other = report_of(pretrained(), *map(booked, shape)), report_of(pretrained(), *unlike)
    assert ORDER.index(level(one, other)) <= ORDER.index(allowed)
    assert level(one, other) == level(other, one)
