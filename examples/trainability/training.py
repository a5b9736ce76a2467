"""Dense trainings and retrainings of a small ResNet on Fashion-MNIST."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from outcomes import Outcome  # type: ignore[import-not-found]
from rows import DENSE, DENSE_ROW, EPOCHS, RATIOS, Arm  # type: ignore[import-not-found]
from torch import nn

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.compiler.recovery.controls import reinitialised
from prunec.compiler.recovery.recover import EpochRecord, Recover, Recovered, recover
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.recovery.trainability import trainability_accuracy
from prunec.passes import Program, capture
from prunec.passes.base import PassResult
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import Unknown

EXAMPLE = Path(__file__).resolve().parents[1] / "fashion_mnist"
#: SGD as in the paper; the accuracy is that after the last epoch.
MOMENTUM, WEIGHT_DECAY, BATCH_SIZE, AUGMENT = 0.9, 1e-4, 128, ("flip",)


@dataclass(frozen=True)
class Setup:
    """How long and on how many images.

    Attributes:
        epochs: Epochs of the dense training.
        dense: Its schedule.
        train_images: Images of the training data, ten of which are held out.
        test_images: Images of the test data.
    """

    epochs: int = EPOCHS
    dense: str = DENSE
    train_images: int = 5_000
    test_images: int = 5_000


def load(setup: Setup) -> Data:
    """Images of the other example, every class in its share; ten are held out, since nothing is chosen here."""
    config = DataConfig(
        "npz:fashion_mnist.npz", "npz:fashion_mnist.npz", (0.2860,), (0.3530,), augment=AUGMENT,
        validation_fraction=10 / setup.train_images, limit_train=setup.train_images, limit_test=setup.test_images,
    )  # fmt: skip
    return load_data(config, EXAMPLE, seed=0)


def network(seed: int) -> nn.Module:
    """A ResNet of 3 basic blocks with random weights."""
    sys.path.insert(0, str(EXAMPLE))
    from model import ResNet  # type: ignore[import-not-found]

    torch.manual_seed(seed)
    module: nn.Module = ResNet(blocks=1)
    return module


def captured(module: nn.Module) -> Program:
    """The network as a program for batches of any size."""
    return capture(module, (torch.zeros(2, 1, 28, 28),))


def speedups() -> dict[float, float]:
    """Dense over pruned multiply-accumulates by ratio; they don't depend on the weights."""
    dense = captured(network(0))
    return {ratio: dense.macs() / _pruned(dense, ratio, "l1", 0).program.macs() for ratio in RATIOS}


def checkpoint(folder: Path, seed: int, epoch: int) -> Path:
    """Place of a dense network after so many epochs; after 0 it has random weights."""
    return folder / f"{seed}-{epoch}.pt2"


def train_dense(setup: Setup, epochs_kept: frozenset[int], seed: int, folder: Path) -> Outcome:
    """Train the dense network, and save it after the epochs at which it will be pruned."""
    torch.set_num_threads(1)
    dense = captured(network(seed))
    dense.save(checkpoint(folder, seed, 0))

    def save(record: EpochRecord, program: Program) -> None:
        if record.epoch in epochs_kept:
            program.save(checkpoint(folder, seed, record.epoch))

    result = _train(dense, setup.epochs, setup.dense, load(setup), seed, progress=save)
    return _outcome(Arm(DENSE_ROW, 0.0, setup.epochs, setup.epochs, setup.dense), seed, 1.0, result)


def retrain(setup: Setup, arm: Arm, seed: int, folder: Path) -> Outcome:
    """Prune the first convolution of every block and retrain."""
    torch.set_num_threads(1)
    dense = Program.load(checkpoint(folder, seed, arm.pruned_after))
    result = _pruned(dense, arm.ratio, arm.criterion, seed)
    program = result.program
    if arm.pruned_after == 0:
        assert result.plan is not None
        program = captured(reinitialised(network(seed), result.plan, seed, example=dense.example_args))
    trained = _train(program, arm.epochs, arm.schedule, load(setup), seed)
    return _outcome(arm, seed, dense.macs() / program.macs(), trained)


def _pruned(dense: Program, ratio: float, criterion: str, seed: int) -> PassResult:
    """Filters of the first convolution of every block removed."""
    return PruneFilters(ratio={"blocks.*.conv1": ratio}, criterion=criterion, seed=seed).run(dense)


def _train(program: Program, epochs: int, schedule: str, data: Data, seed: int, **others: object) -> Recovered:
    options = Recover(
        epochs=epochs, schedule=schedule, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, batch_size=BATCH_SIZE,
        optimizer="sgd", keep="last", probe=0,
    )  # fmt: skip
    return recover(program, options, data, seed=seed, **others)  # type: ignore[arg-type]


def _outcome(arm: Arm, seed: int, speedup: float, result: Recovered) -> Outcome:
    curve = tuple(record.test for record in result.curve)
    accuracy = trainability_accuracy(parse_schedule(arm.schedule, epochs=len(curve)), curve)
    first_stage = curve[0] if isinstance(accuracy, Unknown) else accuracy
    return Outcome(arm, seed, speedup, curve[-1], first_stage, curve)
