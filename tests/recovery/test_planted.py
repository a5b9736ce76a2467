"""Forty short retrainings with a known fault or none: the diagnosis names it."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.compiler.recovery.diagnosis import Diagnosis, Probe, diagnose, probe_rate
from prunec.compiler.recovery.recover import Recover, Recovered, recover
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.passes import Program, capture
from prunec.passes.errors import TrainingDivergedError
from prunec.passes.prune_filters import PruneFilters
from prunec.runtime.evaluate import evaluate
from tests.test_trainability_example import FOLDER, example

DENSE_EPOCHS, PROBE_EPOCHS = 8, 2


@dataclass(frozen=True)
class Case:
    """A retraining and what is wrong with it."""

    ratio: float
    epochs: int
    schedule: str
    expected: str


CASES = (
    # A learning rate a hundred times too small.
    *(Case(ratio, 5, "constant:1e-4", "under-trained") for ratio in (0.5, 0.6, 0.7, 0.8)),
    Case(0.7, 5, "step:0=1e-4,3=1e-5", "under-trained"),
    # Decayed long before it had settled.
    *(Case(ratio, 5, "step:0=0.01,1=1e-4", "under-trained") for ratio in (0.8, 0.85, 0.9)),
    *(Case(ratio, 6, "step:0=0.01,1=1e-4,4=1e-5", "under-trained") for ratio in (0.85, 0.9)),
    # Hardly anything left, trained well.
    *(Case(0.98, epochs, "step:0=0.05,5=0.005,7=5e-4", "over-pruned") for epochs in (8, 9, 10)),
    *(Case(0.98, 9, f"clr:{rate}", "over-pruned") for rate in (0.05, 0.1)),
    # Trained well.
    *(Case(ratio, 7, "step:0=0.02,4=0.002,6=2e-4", "converged") for ratio in (0.1, 0.2, 0.3)),
    *(Case(ratio, 7, "clr:0.03", "converged") for ratio in (0.2, 0.3)),
)


@pytest.fixture(scope="module")
def data() -> Data:
    config = DataConfig(
        "npz:fashion_mnist.npz", "npz:fashion_mnist.npz", (0.2860,), (0.3530,), augment=("flip",),
        validation_fraction=0.3, limit_train=6000, limit_test=2000,
    )  # fmt: skip
    return load_data(config, FOLDER.with_name("fashion_mnist"), seed=0)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(program: Program, epochs: int, schedule: str, data: Data, seed: int, keep: str = "best") -> Recovered:
    options = Recover(epochs=epochs, schedule=schedule, batch_size=64, keep=keep)  # type: ignore[arg-type]
    return recover(program, options, data, seed=seed)


def diagnosed(case: Case, dense: Program, accuracy: float, data: Data, seed: int) -> Diagnosis:
    pruned = PruneFilters(ratio=case.ratio).run(dense).program
    result = train(pruned, case.epochs, case.schedule, data, seed)
    schedule = parse_schedule(case.schedule, epochs=case.epochs)
    rate = probe_rate(schedule, case.epochs)
    reached = max(record.validation for record in result.curve)
    try:
        further = max(r.validation for r in train(result.program, PROBE_EPOCHS, f"constant:{rate}", data, seed).curve)
    except TrainingDivergedError:
        further = 0.0
    return diagnose(schedule, result.curve, accuracy, Probe(PROBE_EPOCHS, rate, 100 * (further - reached)))


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
def test_at_least_36_of_40_planted_faults_are_named(data: Data) -> None:
    wrong = []
    for seed in (0, 1):
        random = capture(example("run").network(seed), (torch.zeros(2, 1, 28, 28),))
        dense = train(random, DENSE_EPOCHS, "cosine:0.1", data, seed, keep="last").program
        accuracy = evaluate(dense, data.test.batches(500))
        for case in CASES:
            found = diagnosed(case, dense, accuracy, data, seed)
            print(f"seed {seed}, {case}: {found}")
            if found.verdict != case.expected:
                wrong.append(f"{case}: {found}")
    assert len(CASES) == 20
    assert len(wrong) <= 4, wrong
