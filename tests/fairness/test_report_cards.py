"""Cards of reports: stages of the chain, what counts as an epoch, control arms, seeds, reports without a ledger."""

from pathlib import Path
from typing import Any

import pytest

from prunec.calibration.batchnorm import ReestimateBatchNorm
from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.fairness.card_reading import read_cards
from prunec.compiler.fairness.comparison_levels import compare_pair
from prunec.compiler.fairness.report_cards import report_card
from prunec.compiler.fairness.run_card import RunCard
from prunec.compiler.fairness.runs_comparison import comparison_level
from prunec.compiler.recovery.rate_pieces import joined
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.report.ledger_part import LedgerEntryPart
from prunec.compiler.report.report import Report
from prunec.compiler.report.training_parts import ControlPart, RunPart, RunsSummaryPart
from prunec.passes.errors import UsageError
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify
from prunec.passes.unknown import Unknown
from tests.compiler.sample_report import sample_report
from tests.fairness.synthetic import COMPILED_MACS, TRAIN_IMAGES, booked, chained, pretrained, report_of

PRUNED, SPARSE = PruneFilters(ratio=0.5), Sparsify(criterion="wanda")


def training(epochs: int, **options: Any) -> LedgerEntryPart:
    return booked(Recover(epochs=epochs, schedule="constant:0.01", optimizer="sgd", momentum=0.9, **options))


def card(*entries: LedgerEntryPart, name: str = "a", **changes: Any) -> RunCard:
    return report_card(report_of(pretrained(), *entries, **changes), name)


def test_stages_of_a_chain() -> None:
    early, first, second = training(3), training(2), training(4)
    run = card(early, booked(PRUNED), first, booked(SPARSE), booked(ReestimateBatchNorm(samples=200)), second)
    assert run.pretraining.epochs == 5
    assert run.pruning.epochs == 3 + (128 + 200) / TRAIN_IMAGES, "samples of a criterion and of statistics count"
    assert run.pruning.learning_rates == early.learning_rates
    assert (run.finetuning.epochs, run.pruned_at) == (6, (0, 2))
    assert run.finetuning.learning_rates == joined(first.learning_rates, second.learning_rates)  # type: ignore[arg-type]
    assert (run.structure, run.speedup, run.distilled) == ("filters, 2:4", 2.0, False)
    samples = 128 + 200
    trained = 5 + (3 + 2 + 4) / 2
    assert run.operations == pytest.approx(trained, rel=1e-9), f"{samples} samples cost nothing that is booked"


def test_images_of_a_calibration_are_no_epochs_of_pruning() -> None:
    plain, calibrated = card(booked(PRUNED)), card(booked(PRUNED), booked(Calibrate(samples=200)), name="b")
    assert calibrated.pruning == plain.pruning
    assert calibrated.compression is not None
    assert calibrated.compression["calibrate.samples"] == 200


def test_a_teacher_and_hooks_count_as_operations() -> None:
    alone, taught = card(booked(PRUNED), training(3)), card(booked(PRUNED), training(3, distill=2.0))
    assert alone.operations is not None
    assert taught.operations == pytest.approx(alone.operations + 3 / 3), (
        "a teacher's forward pass is a third of training"
    )
    assert (alone.distilled, taught.distilled) == (False, True)


def test_epochs_before_further_rounds_are_retraining() -> None:
    once, longer = card(booked(PRUNED), training(2)), card(booked(PRUNED), training(4), name="b")
    rounds = card(booked(PRUNED), training(2), booked(PRUNED), training(2), name="c")
    assert compare_pair(once, rounds).level == "S2"
    assert compare_pair(longer, rounds).level == "S3.2", "as many epochs and the same rates, and another pruning"
    nothing = booked(PRUNED).model_copy(update={"removed": False})
    twice = card(booked(PRUNED), training(2), nothing, training(2), name="d")
    assert (twice.pruned_at, compare_pair(once, twice).level) == ((0,), "S2")
    assert compare_pair(longer, twice).level == "S4.2", "what removes nothing is no round"


def test_only_the_chain_counts() -> None:
    entries = chained([pretrained(), booked(PRUNED), training(2)])
    probe = training(9).model_copy(
        update={"stage": "probe", "weights_in": entries[-1].weights_out, "weights_out": None}
    )
    seed = [entry.model_copy(update={"run": "seed 1"}) for entry in entries[1:]]
    report = report_of(ledger=(*entries, probe, *seed))
    assert report_card(report, "a").finetuning.epochs == 2
    assert report_card(report, "a").pretraining.epochs == 5


def test_what_a_ledger_does_not_know_is_unknown() -> None:
    unknown = Unknown("nothing says it.")
    untold = pretrained().model_copy(
        update=dict.fromkeys(("epochs", "samples", "macs_per_sample", "learning_rates"), unknown)
    )
    one, other = (report_card(report_of(untold, booked(PRUNED), training(2)), name) for name in "ab")
    assert one.operations is None
    assert one.from_scratch is None
    pair = compare_pair(one, other)
    assert (pair.level, pair.tags) == ("S4.2", ()), "the same weights, and nothing is known of how they were made"
    assert "a: pretraining.epochs" in pair.missing


def test_a_chain_that_does_not_lead_back_tells_nothing() -> None:
    whole = report_of(pretrained(), booked(PRUNED), training(2))
    assert not isinstance(whole.ledger, Unknown)
    for update in ({"weights_out": "lost"}, {"weights_out": Unknown("nothing says it.")}):
        torn = (whole.ledger[0], whole.ledger[1].model_copy(update=update), whole.ledger[2])
        for ledger in (torn, ()):
            card = report_card(whole.model_copy(update={"ledger": ledger}), "b")
            assert (card.structure, card.base, card.finetuning.epochs, card.pruned_at) == (None, None, None, None)
            pair = compare_pair(report_card(whole, "a"), card)
            assert (pair.level, pair.at_most, pair.differs, pair.tags) == ("S0", "S4.2", (), ())


def test_options_that_change_between_trainings_are_told_with_their_epochs() -> None:
    changing = [card(booked(PRUNED), training(n, nesterov=True), training(4 - n)) for n in (1, 2)]
    steady = card(booked(PRUNED), training(2), training(2), name="b")
    assert str(changing[0].training.nesterov) == "yes from epoch 0, no from epoch 1"
    assert compare_pair(changing[0], steady).level == "S3.1"
    assert compare_pair(changing[0], changing[1].model_copy(update={"name": "b"})).level == "S3.1"
    assert compare_pair(steady, card(booked(PRUNED), training(4))).level == "S4.2"


def test_from_scratch_by_the_rates_of_the_whole_training() -> None:
    dense = pretrained(2, "constant:0.01")
    pruned = report_card(report_of(dense, booked(PRUNED), training(3)), "pruned")
    scratch = report_card(report_of(pretrained(0), booked(PRUNED), training(5)), "scratch")
    assert (scratch.base, scratch.from_scratch) == ("random", True)
    pair = compare_pair(pruned, scratch)
    assert (pair.level, pair.tags) == ("S4.2", ("SX-A",))
    assert all(word.startswith("operations") for word in pair.differs)
    kept = report_card(report_of(pretrained(0), booked(PRUNED), training(5, keep="last")), "scratch")
    assert compare_pair(pruned, kept).level == "S1"


def test_from_scratch_by_the_options_of_the_whole_training() -> None:
    """All trainings of the pruned run count: the dense network's, that before pruning, and the retraining."""
    scratch = report_card(report_of(pretrained(0), booked(PRUNED), training(8)), "scratch")

    def against_scratch(dense_optimizer: str = "sgd", **early: Any) -> str:
        dense = pretrained(2, "constant:0.01").model_copy(update={"options": {"optimizer": dense_optimizer}})
        entries = (dense, training(3, **early), booked(PRUNED), training(3))
        return compare_pair(report_card(report_of(*entries), "pruned"), scratch).level

    assert against_scratch() == "S4.2"
    assert against_scratch("adamw") == "S1"
    assert against_scratch(label_smoothing=0.1) == "S1"
    assert against_scratch(weight_decay=0.1) == "S1"


def reported(**changes: Any) -> Report:
    """A report of three seeds with a control arm."""
    entries = chained([pretrained(2, "constant:0.01"), booked(PRUNED), training(3)])
    arm = chained([pretrained(0), training(5)], "scratch-e")
    runs = tuple(RunPart(seed=seed, accuracy=accuracy) for seed, accuracy in enumerate((0.8, 0.82, 0.81)))
    summary = RunsSummaryPart(mean=0.81, standard_deviation=0.01)
    control = ControlPart(
        name="scratch-e", epochs=5, schedule="constant:0.01", accuracy=0.7, macs=COMPILED_MACS, zero_fraction=0.0,
        runs=runs, summary=summary, note="",
    )  # fmt: skip
    parameters = sample_report().parameters.model_copy(update={"zero_fraction": 0.0})
    fields = {"ledger": (*entries, *arm), "runs": runs, "runs_summary": summary, "controls": (control,)}
    return report_of(**(fields | {"parameters": parameters} | changes))


def test_control_arms_and_seeds_of_a_report_are_runs(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(reported().to_json())
    main, arm = read_cards(tmp_path / "run.json")
    assert (main.name, arm.name, arm.arm_of) == ("run", "run: scratch-e", "run")
    assert (arm.base, arm.structure, arm.speedup, arm.finetuning.epochs) == ("scratch", "filters", 2.0, 5)
    assert arm.accuracy == main.accuracy
    pair = compare_pair(main, arm)
    assert (pair.level, pair.tags) == ("S4.2", ("SX-A",))
    [named] = read_cards(tmp_path / "run.json#scratch-e")
    assert named == arm.model_copy(update={"arm_of": None})
    [seed] = read_cards(tmp_path / "run.json#seed-1")
    assert (seed.name, seed.accuracy.mean, seed.accuracy.standard_deviation) == ("run: seed 1", 0.82, None)
    with pytest.raises(UsageError, match=r"has no run 'scratch-f'.*") as error:
        read_cards(tmp_path / "run.json#scratch-f")
    assert "scratch-e" in str(error.value.hint)
    assert [card.name for card in read_cards(Path("examples/published/table4.yaml#scratch"))] == ["scratch"]


def test_reports_without_a_ledger_know_less() -> None:
    report = sample_report()
    run = report_card(report, "sample")
    assert (run.speedup, run.distilled, run.int8) == (pytest.approx(2.03, abs=0.01), True, False)
    assert (run.finetuning.epochs, run.finetuning.learning_rates) == (20, None)
    assert (run.training.ema, run.structure) == ("none", "filters, 2:4")
    pair = compare_pair(run, run.model_copy(update={"name": "again"}))
    assert (pair.level, pair.at_most) == ("S1", "S4.2")
    assert {"sample: finetuning.learning_rates", "sample: training.distill", "sample: pruning.epochs"} <= {
        *pair.missing
    }
    assert comparison_level(report, report).level == "S1"
    twice = report_card(
        report.model_copy(update={"pipeline": "repeat{n=2}(prune-filters{ratio=0.2} recover{epochs=2})"}), "x"
    )
    assert twice.finetuning.epochs is None, "it tells of the last of two trainings alone"
    assert twice.structure == "filters"


def test_what_was_measured_of_the_first_seed_is_told_of_no_other_run(tmp_path: Path) -> None:
    recovery = sample_report().recovery.model_copy(update={"trainability_accuracy": 0.7})  # type: ignore[union-attr]
    (tmp_path / "run.json").write_text(reported(recovery=recovery).to_json())
    main, arm = read_cards(tmp_path / "run.json")
    [first], [second] = (read_cards(tmp_path / f"run.json#seed-{seed}") for seed in (0, 1))
    assert (main.kept_magnitude is None, main.trainability_accuracy) == (False, 0.7)
    for card_of_another in (arm, second):
        assert (card_of_another.kept_magnitude, card_of_another.trainability_accuracy) == (None, None)
    assert (first.kept_magnitude, first.trainability_accuracy) == (main.kept_magnitude, main.trainability_accuracy)


def test_what_reports_without_a_ledger_do_not_tell_is_unknown(tmp_path: Path) -> None:
    control = ControlPart(name="dense", epochs=2, schedule="auto", accuracy=0.9, note="")
    report = sample_report().model_copy(update={"controls": (control,)})
    (tmp_path / "run.json").write_text(report.to_json())
    _, arm = read_cards(tmp_path / "run.json")
    assert (arm.structure, arm.method) == (None, "dense"), "an arm of the dense network is not pruned"
    unread = report_card(report.model_copy(update={"pipeline": "prune-filters{"}), "x")
    assert (unread.structure, unread.finetuning.epochs) == (None, None)
