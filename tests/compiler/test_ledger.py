"""The ledger of a compile: every stage that cost something is in it once, on the weights that it worked on."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.compiler import Program, Settings, capture, compile_model
from prunec.compiler.bundle.bundle_reader import read_bundle
from prunec.compiler.commands.verify_source import same_source
from prunec.compiler.recovery.rate_pieces import joined, same_rates
from prunec.compiler.recovery.schedules import parse_schedule, untrained
from prunec.compiler.report.ledger_part import LedgerEntryPart, chain
from prunec.compiler.report.report import Report
from prunec.passes.errors import InputError, UsageError
from prunec.passes.identity import architecture_sha256, weights_sha256
from prunec.passes.unknown import Unknown
from tests.plugins.install import installed

FAST: dict[str, Any] = {
    "build_engine": False,
    "latency_runs": 3,
    "pretraining": parse_schedule("constant:0.1", epochs=5),
}
TRAIN, BATCH = 108, 16
PRUNE, RECOVER = "prune-filters{ratio=0.5}", "recover{epochs=2,schedule=constant:0.05,batch_size=16,probe=0}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    images, labels = generator.normal(size=(160, 1, 8, 8)).astype("f4"), generator.integers(4, size=160)
    images[np.arange(160), 0, labels * 2] += 2
    np.savez(
        folder / "d.npz",
        train_images=images[:120],
        train_labels=labels[:120],
        test_images=images[120:],
        test_labels=labels[120:],
    )
    return load_data(DataConfig("npz:d.npz", "npz:d.npz"), folder, 0)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        convolutions = (nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
        return nn.Sequential(*convolutions, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


@pytest.fixture(scope="module")
def program() -> Program:
    return capture(network(), (torch.zeros(2, 1, 8, 8),))


def compiled(program: Program, pipeline: str, data: Data, folder: Path, **settings: Any) -> Report:
    return compile_model(
        program, "cpu", pipeline, data, folder / "b", settings=Settings(**{**FAST, **settings}), force=True
    )


def ledger(report: Report) -> tuple[LedgerEntryPart, ...]:
    assert not isinstance(report.ledger, Unknown)
    return report.ledger


def test_every_stage_is_booked_once_and_the_chain_joins_them(program: Program, data: Data, tmp_path: Path) -> None:
    masks = "sparsify{criterion=wanda,samples=32,pattern=elements,ratio=0.5}"
    pipeline = f"{PRUNE} {RECOVER} {masks} re-estimate-batchnorm{{samples=24}} {RECOVER}"
    report = compiled(program, pipeline, data, tmp_path)
    entries = ledger(report)
    stages = ["pretraining", "prune-filters", "recover", "sparsify", "re-estimate-batchnorm", "recover"]
    assert [entry.stage for entry in entries] == stages
    assert list(chain(entries)) == list(entries)
    assert all(before.weights_out == after.weights_in for before, after in pairwise(entries))
    assert (entries[0].weights_in, entries[0].weights_out) == ("random", weights_sha256(program))
    assert entries[-1].weights_out == report.model.compiled_sha256
    assert [entry.removed for entry in entries] == [False, True, False, True, False, False]
    steps = TRAIN // BATCH
    assert [entry.epochs for entry in entries] == [5.0, 0.0, 2.0, 0.0, 0.0, 2.0]
    assert [entry.samples for entry in entries[1:]] == [0, 2 * steps * BATCH, 32, 24, 2 * steps * BATCH]
    assert [entry.steps for entry in entries[1:]] == [0, 2 * steps, 0, 0, 2 * steps]
    assert Report.from_json(report.to_json()) == report


def test_costs_are_those_of_the_network_that_was_run(program: Program, data: Data, tmp_path: Path) -> None:
    report = compiled(program, f"{PRUNE} {RECOVER[:-1]},distill=2.0}}", data, tmp_path)
    dense, recovery = program.macs(), ledger(report)[-1]
    assert not isinstance(recovery.macs_per_sample, Unknown)
    costs = recovery.macs_per_sample
    assert (costs.forward, costs.backward, costs.teacher) == (report.macs.compiled, 2 * report.macs.compiled, dense)
    pretraining = ledger(report)[0].macs_per_sample
    assert not isinstance(pretraining, Unknown)
    assert pretraining.total == 3 * dense


def test_options_are_all_there_and_resolved(program: Program, data: Data, tmp_path: Path) -> None:
    report = compiled(program, f"{PRUNE} recover{{epochs=1,batch_size=16}}", data, tmp_path, seed=7)
    prune, recovery = ledger(report)[1:3]
    assert prune.options["criterion"] == "l1"
    assert (prune.options["seed"], prune.options["speedup"]) == (7, "none")
    assert recovery.options["schedule"] != "auto"
    assert (recovery.options["momentum"], recovery.options["loss"], recovery.seed) == (0.9, "cross-entropy", 7)


def test_learning_rates_are_exact(program: Program, data: Data, tmp_path: Path) -> None:
    schedule = "step:0=0.05,0.5=0.01"
    report = compiled(program, f'{PRUNE} recover{{epochs=1,schedule="{schedule}",batch_size=16}}', data, tmp_path)
    rates = ledger(report)[2].learning_rates
    assert not isinstance(rates, Unknown)
    assert same_rates(rates, parse_schedule(schedule, epochs=1).pieces(1.0))
    assert not same_rates(rates, parse_schedule("step:0=0.05,0.6=0.01", epochs=1).pieces(1.0))


def test_several_recoveries_are_one_retraining(program: Program, data: Data, tmp_path: Path) -> None:
    short = 'recover{epochs=1,schedule="constant:0.01",batch_size=16}'
    report = compiled(program, f"{PRUNE} {RECOVER} {short}", data, tmp_path)
    recovery, entries = report.recovery, ledger(report)
    assert not isinstance(recovery, Unknown)
    assert (recovery.epochs, recovery.steps) == (3, 3 * (TRAIN // BATCH))
    assert [record.epoch for record in recovery.curve] == [1, 2, 3]
    assert recovery.learning_rates == ((0.0, 0.05), (2.0, 0.01))
    assert recovery.checkpoint_epoch == 3
    pieces = [entry.learning_rates for entry in entries if entry.stage == "recover"]
    assert joined(*pieces)[-1].end == 3  # type: ignore[arg-type]


def test_training_before_pruning_counts_as_the_prunings(program: Program, data: Data, tmp_path: Path) -> None:
    report = compiled(program, f"{RECOVER} {PRUNE} {RECOVER}", data, tmp_path)
    assert not isinstance(report.pruning, Unknown)
    assert report.pruning.epochs == 2


@pytest.mark.parametrize("told", ["nothing", "untrained"])
def test_pretraining_as_it_is_told(told: str, program: Program, data: Data, tmp_path: Path) -> None:
    pretraining = None if told == "nothing" else untrained()
    first = ledger(compiled(program, PRUNE, data, tmp_path, pretraining=pretraining))[0]
    assert first.weights_out == weights_sha256(program)
    if told == "nothing":
        assert isinstance(first.epochs, Unknown)
        assert isinstance(first.weights_in, Unknown)
    else:
        assert (first.epochs, first.samples, first.weights_in) == (0, 0, "random")


def test_further_seeds_and_arms_stand_beside_the_main_line(program: Program, data: Data, tmp_path: Path) -> None:
    controls = ("scratch-e", "dense", "random")
    settings: dict[str, Any] = {"controls": controls, "seeds": 2, "module": network()}
    report = compiled(program, f"{PRUNE} {RECOVER[:-1]},distill=2.0}}", data, tmp_path, **settings)
    entries = ledger(report)
    runs = list(dict.fromkeys(entry.run for entry in entries))
    assert runs == ["", "seed 1", *(f"{name}{more}" for name in controls for more in ("", ", seed 1"))]
    for control in report.controls:
        assert not isinstance(control.runs, Unknown)
        assert [run.seed for run in control.runs] == [0, 1]
    epochs = {run: sum(entry.epochs for entry in chain(entries, run)) for run in runs}  # type: ignore[misc]
    assert epochs == dict.fromkeys(runs, 7.0)
    scratch = chain(entries, "scratch-e")
    assert [(entry.stage, entry.epochs) for entry in scratch] == [("pretraining", 0.0), ("recover", 7.0)]
    assert scratch[1].options["distill"] == 0
    dense = chain(entries, "dense, seed 1")
    assert (dense[0].run, dense[-1].options["schedule"]) == ("", "constant:0.05")
    assert len({run.accuracy for run in report.controls[0].runs} | {0}) > 1  # type: ignore[union-attr]


def test_arms_follow_the_schedule_that_was_chosen(program: Program, data: Data, tmp_path: Path) -> None:
    pipeline = f"{PRUNE} recover{{epochs=1,batch_size=16}}"
    report = compiled(program, pipeline, data, tmp_path, controls=("dense", "random"))
    assert not isinstance(report.recovery, Unknown)
    assert {control.schedule for control in report.controls} == {report.recovery.schedule}


def test_arms_of_one_report_are_of_their_own_seeds(program: Program, data: Data, tmp_path: Path) -> None:
    report = compiled(program, f"{PRUNE} {RECOVER}", data, tmp_path, controls=("scratch-e",), seeds=2, module=network())
    starts = [e.weights_out for e in ledger(report) if e.stage == "pretraining" and e.run]
    assert len(set(starts)) == 2


def weight_normed() -> Program:
    module = network()
    module[3] = nn.utils.parametrizations.weight_norm(module[3])
    return capture(module, (torch.zeros(2, 1, 8, 8),))


def test_folding_removes_nothing(data: Data, tmp_path: Path) -> None:
    pipeline = f"fold-parameters {RECOVER} {PRUNE} {RECOVER}"
    report = compiled(weight_normed(), pipeline, data, tmp_path)
    assert [entry.removed for entry in ledger(report)[1:4]] == [False, False, True]
    assert not isinstance(report.pruning, Unknown)
    assert report.pruning.epochs == 2


def test_no_training_counts_as_pruning_and_as_recovery(program: Program, data: Data, tmp_path: Path) -> None:
    for pipeline, split in (
        (f"{RECOVER} {PRUNE} {RECOVER}", (2, 2)),
        (f"prune-filters{{ratio=0.0}} {RECOVER}", (0, 2)),
    ):
        report = compiled(program, pipeline, data, tmp_path)
        assert not isinstance(report.pruning, Unknown)
        assert not isinstance(report.recovery, Unknown)
        assert (report.pruning.epochs, report.recovery.epochs) == split
        assert len(report.recovery.curve) == report.recovery.epochs


def test_what_looks_at_no_data_costs_nothing(program: Program, data: Data, tmp_path: Path) -> None:
    macs = ledger(compiled(program, PRUNE, data, tmp_path))[1].macs_per_sample
    assert not isinstance(macs, Unknown)
    assert macs.total == 0


def test_nobody_knows_the_seed_of_a_checkpoint(program: Program, data: Data, tmp_path: Path) -> None:
    report = compiled(program, PRUNE, data, tmp_path, pretraining=untrained())
    assert isinstance(ledger(report)[0].seed, Unknown)


def test_rewinding_is_booked_with_the_weights_that_it_rewinds_to(program: Program, data: Data, tmp_path: Path) -> None:
    pipeline = f"{PRUNE} recover{{epochs=1,schedule=wr,early=e,batch_size=16}}"
    early = capture(network(1), (torch.zeros(2, 1, 8, 8),))
    entry = chain(ledger(compiled(program, pipeline, data, tmp_path, early={"e": early})))[-1]
    assert entry.options["early_sha256"] == weights_sha256(early)


@pytest.mark.parametrize(("control", "epochs"), [("scratch-e", 5 + 4), ("scratch-b", None)])
def test_scratch_arms_spend_what_the_run_spent(
    control: str, epochs: float | None, program: Program, data: Data, tmp_path: Path
) -> None:
    pipeline = f"repeat{{n=2}}(prune-filters{{ratio=0.3}} {RECOVER[:-1]},distill=2.0}})"
    report = compiled(program, pipeline, data, tmp_path, controls=(control, control), module=network())
    (arm,) = report.controls
    if epochs is None:
        line = [(entry.epochs, entry.macs_per_sample) for entry in chain(ledger(report))]
        operations = sum(e * m.total for e, m in line)  # type: ignore[operator,union-attr]
        epochs = round(operations / (3 * report.macs.compiled))
    assert arm.epochs == epochs


def test_arms_that_lack_an_optimizer_are_refused_before_any_work(program: Program, data: Data, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"controls": ("scratch-e",), "pretraining_optimizer": "mine:optimizer"}
    with pytest.raises(UsageError, match="mine:optimizer"):
        compiled(program, f"{PRUNE} {RECOVER[:-1]},optimizer=sgd}}", data, tmp_path, **settings)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[None]:
    names = {"odd": "STEP", "seeing": "SEEING"}
    locations = {name: f"tests.plugins.odd_step:{attribute}" for name, attribute in names.items()}
    with installed(tmp_path / "site", "prunec.steps", **locations):
        yield


@pytest.mark.usefixtures("odd")
def test_what_a_plug_in_does_not_tell_is_not_known(program: Program, data: Data, tmp_path: Path) -> None:
    pipeline = "odd{does=x} seeing{does=x} seeing{does=trains}"
    report = compiled(program, pipeline, data, tmp_path)
    costless, untold, told = ledger(report)[1:]
    assert (costless.samples, costless.epochs) == (0, 0)
    assert isinstance(untold.samples, Unknown)
    assert isinstance(untold.data, Unknown)
    assert (told.samples, told.steps) == (20, 2)
    assert isinstance(told.learning_rates, Unknown)
    assert Report.from_json(report.to_json()) == report


class TestIdentity:
    """One network in several files is one network."""

    SHAPE: ClassVar[tuple[int, ...]] = (2, 1, 8, 8)

    def test_formats_are_one(self, program: Program, tmp_path: Path) -> None:
        program.save(tmp_path / "own.pt2")
        batch = torch.export.Dim("n")
        exported = torch.export.export(network(), (torch.zeros(self.SHAPE),), dynamic_shapes=({0: batch},))
        torch.export.save(exported, tmp_path / "foreign.pt2")
        others = [Program.load(tmp_path / f"{name}.pt2") for name in ("own", "foreign")]
        assert {architecture_sha256(p) for p in (program, *others)} == {architecture_sha256(program)}
        assert {weights_sha256(p) for p in (program, *others)} == {weights_sha256(program)}

    def test_what_no_output_depends_on_does_not_count(self, program: Program) -> None:
        counted = network()
        counted[1].num_batches_tracked += 3  # type: ignore[operator]
        assert weights_sha256(capture(counted, (torch.zeros(self.SHAPE),))) == weights_sha256(program)

    def test_content_counts(self, program: Program) -> None:
        other = capture(network(1), (torch.zeros(self.SHAPE),))
        assert weights_sha256(other) != weights_sha256(program)
        assert architecture_sha256(other) == architecture_sha256(program)
        strided = network()
        strided[3].stride = (2, 2)  # type: ignore[assignment]
        assert architecture_sha256(capture(strided, (torch.zeros(self.SHAPE),))) != architecture_sha256(program)

    def test_names_of_tied_weights_do_not_count(self, tmp_path: Path) -> None:
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
                self.second.weight = self.first.weight

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                outputs: torch.Tensor = self.second(self.first(x).relu())
                return outputs

        captured = capture(Tied(), (torch.zeros(2, 4),))
        captured.save(tmp_path / "tied.pt2")
        stored = Program.load(tmp_path / "tied.pt2")
        assert weights_sha256(stored) == weights_sha256(captured)
        assert architecture_sha256(stored) == architecture_sha256(captured)

    @pytest.mark.parametrize("batch", [1, 2])
    def test_a_fixed_batch_is_no_other_architecture(self, batch: int, program: Program, tmp_path: Path) -> None:
        torch.export.save(torch.export.export(network(), (torch.zeros(batch, 1, 8, 8),)), tmp_path / "fixed.pt2")
        stored = Program.load(tmp_path / "fixed.pt2")
        assert not stored.batch_is_dynamic
        assert architecture_sha256(stored) == architecture_sha256(program)
        wider = capture(network(), (torch.zeros(2, 1, 8, 10),))
        assert architecture_sha256(wider) != architecture_sha256(program)

    def test_the_same_weights_in_another_architecture_are_another_source(
        self, program: Program, data: Data, tmp_path: Path
    ) -> None:
        compiled(program, PRUNE, data, tmp_path)
        bundle = read_bundle(tmp_path / "b")
        assert "is the bundle's source" in same_source(bundle, program)
        other = network()
        other[2] = nn.GELU()
        with pytest.raises(InputError, match="other operators"):
            same_source(bundle, capture(other, (torch.zeros(self.SHAPE),)))

    def test_shared_layers_are_another_architecture(self) -> None:
        class Twice(nn.Module):
            def __init__(self, shared: bool) -> None:
                super().__init__()
                self.a = nn.Linear(4, 4)
                self.b = self.a if shared else nn.Linear(4, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                outputs: torch.Tensor = self.b(self.a(x))
                return outputs

        a, b = (architecture_sha256(capture(Twice(shared), (torch.zeros(2, 4),))) for shared in (True, False))
        assert a != b


def test_a_probe_is_booked_beside_the_main_line(program: Program, data: Data, tmp_path: Path) -> None:
    pipeline = f'{PRUNE} recover{{epochs=2,schedule="constant:0.05",batch_size=16,probe=1}}'
    report = compiled(program, pipeline, data, tmp_path)
    *_, recovery, probe = ledger(report)
    assert (probe.stage, probe.epochs, probe.weights_out) == ("probe", 1.0, None)
    assert probe.weights_in == recovery.weights_out == report.model.compiled_sha256
    assert probe.samples == TRAIN // BATCH * BATCH
    assert probe not in chain(ledger(report))
    assert chain(ledger(report))[-1] == recovery
