"""How the retraining schedule decides what a pruning result means: Fashion-MNIST, filters pruned at ratio 0.9.

A tenth of the epochs of Wang, Qin, Bai, Fu, "Why is the State of Neural Network Pruning so Confusing?" (2023), on a
small ResNet: dense training for 12 epochs, pruned after 3, 6 or 9 of them, retrained by their schedules with every
epoch divided by ten. Writes results.csv, claims.md and curves.html.

    python run.py [--workers 2] [--output results]
"""

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.compiler.recovery.controls import reinitialised
from prunec.compiler.recovery.recover import EpochRecord, Recover, Recovered, recover
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.recovery.trainability import trainability_accuracy
from prunec.passes import Program, capture
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import Unknown

EXAMPLE = Path(__file__).resolve().parents[1] / "fashion_mnist"
DENSE = "step:0=0.1,3=0.01,6=0.001,9=1e-4,10.5=1e-5"
RATIO = 0.9


@dataclass(frozen=True)
class Setup:
    """How long and on how many images.

    Attributes:
        epochs: Epochs of the dense training.
        dense: its schedule.
        prune_after: epochs of it after which networks are pruned.
        train_images: first ones of the training data.
        test_images: likewise.
    """

    epochs: int = 12
    dense: str = DENSE
    prune_after: tuple[int, ...] = (3, 6, 9)
    train_images: int = 10_000
    test_images: int = 5_000


@dataclass(frozen=True)
class Arm:
    """One retraining.

    Attributes:
        name: Name in the table.
        pruned_after: epochs of dense training before it; 0 for random weights.
        epochs: Epochs of the retraining.
        schedule: Schedule of the retraining.
        criterion: Criterion by which filters were chosen.
    """

    name: str
    pruned_after: int
    epochs: int
    schedule: str
    criterion: str = "l1"


@dataclass(frozen=True)
class Outcome:
    """What became of a network."""

    arm: str
    seed: int
    schedule: str
    accuracy: float
    trainability: float | None
    curve: tuple[float, ...]


def scaled(published: str) -> tuple[int, str]:
    """Epochs and text of a published schedule (``P60F60,1e-3+60``) with every epoch divided by ten."""
    schedule = parse_schedule(published)
    assert schedule.epochs is not None
    stages = ",".join(f"{start / 10:g}={rate:g}" for start, rate in schedule.trace(schedule.epochs))
    return round(schedule.epochs / 10), f"step:{stages}"


def published_arms() -> list[Arm]:
    """Pruned at three moments, retrained at small and large learning rates, and for longer."""
    arms = [Arm("scratch", 0, 12, DENSE)]
    for after, published in (
        (3, "P30F90,1e-1"),
        (3, "P30F90,1e-2"),
        (6, "P60F60,1e-2"),
        (6, "P60F60,1e-3"),
        (6, "P60F60,1e-3+60"),
        (6, "P60F60,1e-3+180"),
        (9, "P90F30,1e-2"),
        (9, "P90F30,1e-4"),
        (9, "P90F30,1e-4+270"),
    ):
        epochs, schedule = scaled(published)
        arms.append(Arm(f"{published} / 10", after, epochs, schedule))
    return arms


def same_schedule_arms() -> list[Arm]:
    """Different networks under one schedule: what trainability accuracy may rank."""
    epochs, schedule = scaled("P60F60,1e-3")
    networks = [(0, "l1"), (3, "l1"), (9, "l1"), (3, "random"), (6, "random"), (9, "random")]
    return [Arm(f"pruned after {n} by {c}, F60,1e-3 / 10", n, epochs, schedule, c) for n, c in networks]


def load(setup: Setup) -> Data:
    """The images of the other example; ten are held out, since nothing is chosen here."""
    config = DataConfig(
        "npz:fashion_mnist.npz", "npz:fashion_mnist.npz", (0.2860,), (0.3530,), augment=("flip",),
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


def train(program: Program, epochs: int, schedule: str, data: Data, seed: int, **others: object) -> Recovered:
    """SGD as in the paper: momentum 0.9, weight decay 1e-4."""
    options = Recover(epochs=epochs, schedule=schedule, weight_decay=1e-4, keep="last")
    return recover(program, options, data, seed=seed, **others)  # type: ignore[arg-type]


def train_dense(setup: Setup, seed: int, folder: str) -> Outcome:
    """Train the dense network and save it at every epoch at which it is pruned."""
    torch.set_num_threads(1)
    dense = capture(network(seed), (torch.zeros(2, 1, 28, 28),))
    dense.save(Path(folder) / f"{seed}-0.pt2")

    def save(record: EpochRecord, program: Program) -> None:
        if record.epoch in setup.prune_after:
            program.save(Path(folder) / f"{seed}-{record.epoch}.pt2")

    result = train(dense, setup.epochs, setup.dense, load(setup), seed, progress=save)
    return outcome("dense", seed, setup.dense, result)


def retrain(setup: Setup, arm: Arm, seed: int, folder: str) -> Outcome:
    """Prune the first convolution of every block and retrain."""
    torch.set_num_threads(1)
    dense = Program.load(Path(folder) / f"{seed}-{arm.pruned_after}.pt2")
    pruned = PruneFilters(ratio={"blocks.*.conv1": RATIO}, criterion=arm.criterion, seed=seed).run(dense)
    program, plan = pruned.program, pruned.plan
    if arm.pruned_after == 0:
        assert plan is not None
        program = capture(reinitialised(network(seed), plan, seed), (torch.zeros(2, 1, 28, 28),))
    result = train(program, arm.epochs, arm.schedule, load(setup), seed)
    return outcome(arm.name, seed, arm.schedule, result)


def outcome(arm: str, seed: int, text: str, result: Recovered) -> Outcome:
    """Final accuracy, and the mean over the first stage: whole epochs of it, one at least."""
    curve = tuple(record.test for record in result.curve)
    schedule = parse_schedule(text, epochs=len(curve))
    accuracy = trainability_accuracy(schedule, curve)
    trainability = curve[0] if isinstance(accuracy, Unknown) else accuracy
    return Outcome(arm, seed, text, curve[-1], trainability, curve)


def run(setup: Setup, arms: Sequence[Arm], seeds: Sequence[int], workers: int) -> list[Outcome]:
    """All runs, the dense ones first, the longest retrainings next."""
    tasks = sorted(((arm, seed) for arm in arms for seed in seeds), key=lambda task: -task[0].epochs)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(workers, mp_context=context) as pool:
        dense = list(pool.map(train_dense, *zip(*[(setup, seed, folder) for seed in seeds], strict=True)))
        for result in dense:
            print(f"seed {result.seed}: dense {100 * result.accuracy:.2f} %", flush=True)
        futures = [pool.submit(retrain, setup, arm, seed, folder) for arm, seed in tasks]
        done = []
        for number, future in enumerate(futures, 1):
            result = future.result()
            done.append(result)
            print(f"{number}/{len(futures)} seed {result.seed}: {result.arm} {100 * result.accuracy:.2f} %", flush=True)
    return dense + done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    from claims import verdicts, write_table
    from curves import write_curves

    arms = published_arms() + same_schedule_arms()
    outcomes = run(Setup(), arms, arguments.seeds, arguments.workers)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_table(outcomes, arguments.output / "results.csv")
    text = verdicts(outcomes)
    (arguments.output / "claims.md").write_text(text)
    write_curves(outcomes, arguments.output / "curves.html")
    print(text)


if __name__ == "__main__":
    main()
