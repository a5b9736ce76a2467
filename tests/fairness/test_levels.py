"""Comparison levels: the published table, monotony, ties, families, and what YAML says."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.compiler.fairness.amounts import Alike
from prunec.compiler.fairness.card_reading import read_cards
from prunec.compiler.fairness.comparison_levels import LEVELS, PairLevels, compare_pair
from prunec.compiler.fairness.names import same_name
from prunec.compiler.fairness.run_card import RunCard
from prunec.compiler.fairness.runs_comparison import compare
from prunec.passes.errors import InputError, UsageError

TABLE4 = Path("examples/published/table4.yaml")
ORDER = ["S0", *LEVELS]


def card(name: str = "a", **changes: Any) -> RunCard:
    """A run of which everything is known."""
    fields: dict[str, Any] = {
        "name": name,
        "data": "ImageNet",
        "metric": "top1",
        "architecture": "ResNet-50",
        "base": "torchvision",
        "speedup": 2.31,
        "method": "l1",
        "setup": "one paper",
        "pretraining": {"epochs": 90, "schedule": "step:0=0.1,30=0.01,60=0.001"},
        "pruning": {"epochs": 0},
        "finetuning": {"epochs": 90, "schedule": "step:0=1e-2,30=1e-3,60=1e-4,75=1e-5"},
        "training": {
            "optimizer": "SGD", "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4, "batch_size": 256,
            "loss": "cross-entropy", "augmentation": ["crop", "flip"], "ema": "none", "precision": "fp32",
        },
        "distilled": False,
        "int8": False,
        "accuracy": {"mean": 0.75, "standard_deviation": 0.001},
    }  # fmt: skip
    return RunCard.model_validate(fields | changes)


def test_the_published_rows_against_scratch() -> None:
    """Eleven rows of table 4 at ratio 0.95."""
    scratch, *rows = [row for row in read_cards(TABLE4) if row.speedup == 12.06]
    found = {row.name: compare_pair(row, scratch) for row in rows}
    assert {name: pair.level for name, pair in found.items() if pair.level != "S1"} == dict.fromkeys(
        ("P15F105,1e-1", "P30F90,1e-2", "P45F75,1e-2", "P60F60,1e-3", "P75F45,1e-3", "P90F30,1e-4"), "S4.2"
    )
    tags = {name: pair.tags for name, pair in found.items() if pair.level == "S1"}
    assert tags == {
        **dict.fromkeys(("P30F90,1e-1", "P60F60,1e-2", "P90F30,1e-2"), ("SX-A",)),
        **dict.fromkeys(("P30/kF90,1e-1", "P30/kF90,1e-2"), ("SX-B",)),
    }
    assert all("SX-A" in pair.tags for pair in found.values() if pair.level == "S4.2")


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, "S4.2"),
        ({"method": "random"}, "S4.2"),
        ({"pruning": {"epochs": 10, "schedule": "constant:0.001"}}, "S3.2"),
        ({"finetuning": {"epochs": 90, "schedule": "cosine:0.01"}}, "S3.1"),
        ({"finetuning": {"epochs": 60, "schedule": "halving:1e-2"}}, "S2"),
        ({"base": "another"}, "S1"),
        ({"speedup": 2.32}, "S4.2"),
        ({"speedup": 2.56}, "S0"),
        ({"data": "ImageNet100"}, "S0"),
        ({"metric": "top5"}, "S0"),
        ({"architecture": "ResNet-34"}, "S0"),
        ({"distilled": True}, "S3.1"),
        ({"pruning": {"epochs": 0, "learning_rates": []}}, "S4.2"),
    ],
)
def test_levels_of_two_known_runs(changes: dict[str, Any], level: str) -> None:
    pair = compare_pair(card(), card("b", **changes))
    assert (pair.level, pair.at_most) == (level, level)


def test_equal_epochs_of_pruning_at_other_rates_are_s4_1() -> None:
    a, b = (card(n, pruning={"epochs": 10, "schedule": f"constant:{r}"}) for n, r in (("a", "1e-3"), ("b", "1e-2")))
    assert compare_pair(a, b).level == "S4.1"


FIELDS = [
    *("data", "metric", "architecture", "base", "speedup", "pretraining", "pruning", "finetuning", "training"),
    *("distilled", "int8", "method", "accuracy"),
    *(f"pretraining.{name}" for name in ("epochs", "learning_rates")),
    *(f"pruning.{name}" for name in ("epochs", "learning_rates")),
    *(f"finetuning.{name}" for name in ("epochs", "learning_rates")),
    *(f"training.{name}" for name in ("optimizer", "momentum", "nesterov", "weight_decay", "batch_size", "loss")),
    *(f"training.{name}" for name in ("augmentation", "ema", "precision")),
]


def without(run: RunCard, fields: set[str]) -> RunCard:
    document = run.model_dump()
    for path in fields:
        *parents, last = path.split(".")
        part = document
        for parent in parents:
            part = part.get(parent) or {}
        part.pop(last, None)
    return RunCard.model_validate(document)


RUNS = [
    *read_cards(TABLE4),
    card("a"),
    card("b", pruning={"epochs": 10, "schedule": "constant:0.001"}),
    card("c", finetuning={"epochs": 0}),
    card("d", distilled=True),
]


@given(st.sampled_from(RUNS), st.sampled_from(RUNS), st.sets(st.sampled_from(FIELDS)), st.sets(st.sampled_from(FIELDS)))
def test_removing_a_field_never_raises_the_level(a: RunCard, b: RunCard, of_a: set[str], of_b: set[str]) -> None:
    full, less = compare_pair(a, b), compare_pair(without(a, of_a), without(b, of_b))
    assert ORDER.index(less.level) <= ORDER.index(full.level)
    assert ORDER.index(less.at_most) >= ORDER.index(less.level)
    assert set(less.tags) <= set(full.tags)


def test_operations_of_a_teacher_that_nothing_tells_of_are_not_equal() -> None:
    untold = [without(run, {"distilled"}) for run in RUNS]
    levels = PairLevels([*RUNS, *untold], Alike("macs", None))
    for (a, bare_a), (b, bare_b) in product(zip(RUNS, untold, strict=True), repeat=2):
        assert set(levels(bare_a, bare_b).tags) <= set(levels(a, b).tags)


@given(st.sampled_from(RUNS), st.sampled_from(RUNS))
def test_comparing_is_symmetric(a: RunCard, b: RunCard) -> None:
    one, other = compare_pair(a, b), compare_pair(b, a)
    assert (one.level, one.at_most, one.tags) == (other.level, other.at_most, other.tags)


def test_what_is_missing_is_named_and_bounds_the_level_from_above() -> None:
    pair = compare_pair(card(), without(card("b"), {"training.weight_decay"}))
    assert (pair.level, pair.at_most) == ("S3.1", "S4.2")
    assert pair.predicates["pH"].missing == ("b: training.weight_decay",)


def test_several_runs_share_their_lowest_level() -> None:
    runs = [card("a"), card("b"), card("c", finetuning={"epochs": 90, "schedule": "cosine:0.01"})]
    found, ranked = compare(runs), compare(runs[:2])
    assert (found.level, found.tags) == ("S3.1", ("SX-A", "SX-B"))
    assert (ranked.level, ranked.tags) == ("S4.2", ("SX-A", "SX-B"))


def test_runs_are_ranked_from_s3_2_on_and_close_ones_tie() -> None:
    runs = [
        card(n, accuracy={"mean": m, "standard_deviation": 0.002}) for n, m in (("x", 0.75), ("y", 0.753), ("z", 0.77))
    ]
    found = compare(runs)
    assert found.ranked
    assert found.verdict.startswith("z > y = x")
    below = compare([card("a"), card("b", finetuning={"epochs": 90, "schedule": "cosine:0.01"})])
    assert not below.ranked
    assert below.verdict == "not ranked."
    assert "retraining may explain" in below.warnings[0]


def test_runs_with_a_teacher_are_another_family() -> None:
    found = compare([card("a", distilled=True), card("b", distilled=False)])
    assert not found.ranked
    assert any("distilled: a" in warning for warning in found.warnings)
    assert compare([card("a", distilled=True), card("b", distilled=True)]).ranked


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"data": "ILSVRC 2012", "architecture": "resnet50", "metric": "Top-1"}, "S4.2"),
        ({"data": "ImageNet-1k"}, "S4.2"),
        ({"data": "Tiny ImageNet"}, "S0"),
        ({"architecture": "ResNet-50-D"}, "S0"),
        ({"dense_accuracy": 0.7613}, "S4.2"),
        ({"dense_accuracy": 0.761}, "S4.2"),
        ({"dense_accuracy": 0.7615}, "S1"),
        ({"pretraining": {"epochs": 60, "schedule": "constant:0.1"}}, "S1"),
        ({"structure": "filters, 2:4"}, "S0"),
        ({"structure": "weights"}, "S0"),
        ({"zero_fraction": 0.5}, "S0"),
        ({"training": {"keep": "best"}}, "S3.1"),
        ({"rounds": [0, 30]}, "S3.2"),
    ],
)
def test_names_contradictions_and_structures(changes: dict[str, Any], level: str) -> None:
    known = {"dense_accuracy": 0.7613, "zero_fraction": 0.0}
    training = card().training.model_dump() | changes.get("training", {})
    assert compare_pair(card("a", **known), card("b", **known | changes | {"training": training})).level == level


def test_fingerprints_decide_where_both_runs_have_one() -> None:
    one, other = card("a", data_sha256="0" * 64), card("b", data_sha256="f" * 64)
    pair = compare_pair(one, other)
    assert pair.level == "S0"
    assert pair.differs == ("data: ImageNet against ImageNet by name, and the contents differ",)
    assert compare_pair(one, card("b")).level == "S4.2", "a published row has no fingerprint"
    assert compare_pair(one, card("b", data="another name", data_sha256="0" * 64)).level == "S4.2"
    unnamed = compare_pair(one, card("b", data=None, data_sha256="f" * 64))
    assert unnamed.differs == ("data: ImageNet against fingerprint ffffffff",)


def test_what_a_setup_leaves_out_is_equal_within_it_alone() -> None:
    assert compare_pair(card("a"), card("b", setup="another paper")).level == "S3.1"
    untold = without(card("b"), {"training.keep"})
    assert compare_pair(card("a"), untold).predicates["pH"].missing == ("b: training.keep",)
    told = card("b", training=card().training.model_dump() | {"keep": "last"})
    assert compare_pair(card("a"), told).predicates["pH"].truth is None


def test_a_wider_tolerance_is_asked_for() -> None:
    assert compare_pair(card("a"), card("b", speedup=2.4)).level == "S0"
    assert compare_pair(card("a"), card("b", speedup=2.4), tolerance=0.05).level == "S4.2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae: x", "nmae"),
        ("finetuning: {epochs: 3, schedule: cosin:0.1}", "unknown kind"),
        ("finetuning: {epochs: 3, schedule: 'constant:0.1', learning_rates: []}", "not both"),
        ("[1, 2]", "expected a mapping"),
        ("runs: []\nother: 1", "only common may stand"),
        ("a: [", "no YAML"),
        ("accuracy: {mean: 75.2}", "less than or equal to 1"),
        ("speedup: .inf", "finite"),
        ("finetuning: {epochs: 3, learning_rates: [[0, null]]}", "expected a number, got None"),
        ("finetuning: {epochs: [1], learning_rates: [[0, 1]]}", "expected a number"),
        ("finetuning: {epochs: 3, learning_rates: 5}", "valid tuple"),
        ("finetuning: {epochs: 3, learning_rates: {a: 1}}", "valid tuple"),
        ("runs: [1]", "list of mappings"),
        ("runs: null", "list of mappings"),
        ("runs: [{name: a}]\ncommon: [1]", "list of mappings"),
        ("setup:", "expected words that name a setup, got None"),
        ("setup: ''", "expected words that name a setup"),
        ("name: ''", "at least 1 character"),
        ("accuracy: {by_seed: {0: 0.7, 1: 0.8}}", "that of the seeds"),
        ("accuracy: {mean: 0.5, by_seed: {0: 0.7, 1: 0.8}}", "that of the seeds"),
        ("accuracy: {mean: 0.7, standard_deviation: 0.0, runs: 1}", "one run has no deviation"),
    ],
)
def test_yaml_that_describes_no_run(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_cards(tmp_path / "x.yaml")


def test_too_few_runs_and_equal_names_are_refused() -> None:
    with pytest.raises(UsageError, match="at least two"):
        compare([card()])
    with pytest.raises(UsageError, match="one name"):
        compare([card(), card()])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("CIFAR-10.1", "CIFAR-101"),
        ("MobileNetV2-1.4", "MobileNetV2-14"),
        ("WRN-16-8", "WRN-168"),
        ("ResNet-50+", "ResNet-50"),
    ],
)
def test_punctuation_between_numbers_tells_names_apart(a: str, b: str) -> None:
    assert not same_name(a, b)
    assert same_name(a, a.lower().replace("-", " "))


@pytest.mark.parametrize("name", ["", " ", "?", "-", "unknown", "Not known", "n/a"])
def test_a_name_that_says_nothing_is_no_name(name: str) -> None:
    pair = compare_pair(card("a", base=name), card("b", base=name))
    assert (pair.level, pair.at_most, pair.missing[:2]) == ("S1", "S4.2", ("a: base", "b: base"))
    assert compare_pair(card("a", data=name), card("b", data=name)).level == "S0"
    assert compare_pair(card("a", architecture=name), card("b", architecture=name)).level == "S0"


@pytest.mark.parametrize("structure", ["weights", "2:4", "filters, 2:4"])
def test_masks_of_an_unknown_share_of_zeros_are_not_equal(structure: str) -> None:
    masked = {"structure": structure, "zero_fraction": 0.5}
    assert compare_pair(card("a", **masked), card("b", **masked)).level == "S4.2"
    pair = compare_pair(card("a", **masked), card("b", structure=structure))
    assert (pair.level, pair.at_most, pair.missing) == ("S0", "S4.2", ("b: zero_fraction",))


def test_eight_bits_are_another_arithmetic_without_a_retraining_too() -> None:
    plain = {"finetuning": {"epochs": 0}}
    assert compare_pair(card("a", **plain), card("b", **plain)).level == "S4.2"
    pair = compare_pair(card("a", **plain, int8=True), card("b", **plain))
    assert (pair.level, pair.differs) == ("S3.1", ("int8: yes against no",))


@pytest.mark.parametrize("changes", [{"distilled": True}, {"rounds": [0, 60]}])
def test_operations_that_a_card_does_not_tell_are_unknown(changes: dict[str, Any]) -> None:
    """A teacher's work, and the size of a network that is pruned in rounds."""
    assert "SX-B" in compare_pair(card("a"), card("b")).tags
    assert compare_pair(card("a", **changes), card("b", **changes)).predicates["sB"].truth is None
    told = changes | {"operations": 150.0}
    assert "SX-B" in compare_pair(card("a", **told), card("b", **told)).tags


def test_the_case_of_what_python_names_counts() -> None:
    def of_loss(name: str, loss: str) -> RunCard:
        return card(name, training=card().training.model_dump() | {"loss": loss})

    assert compare_pair(of_loss("a", "mine:Focal"), of_loss("b", "mine:focal")).level == "S3.1"
    assert compare_pair(of_loss("a", "Cross-Entropy"), of_loss("b", "cross-entropy")).level == "S4.2"


def test_dense_networks_by_two_optimizers_are_two() -> None:
    sgd, adam = ({"pretraining_options": {"optimizer": name}} for name in ("sgd", "adam"))
    assert compare_pair(card("a", **sgd), card("b")).level == "S4.2", "nothing known differs"
    pair = compare_pair(card("a", **sgd), card("b", **adam))
    assert (pair.level, pair.differs) == ("S1", ("pretraining_options.optimizer: sgd against adam",))


def test_a_run_from_scratch_of_unknown_pruning_has_unknown_costs() -> None:
    told, untold = (card(name, base="scratch", pruning=stage) for name, stage in (("a", {"epochs": 0}), ("b", {})))
    pair = compare_pair(told, untold)
    assert pair.tags == ()
    assert "b: pruning.epochs" in pair.missing
