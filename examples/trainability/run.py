"""Table 4 at small scale: how the retraining schedule decides what a pruning result means.

Source: Wang, Qin, Bai, Fu, "Why is the State of Neural Network Pruning so Confusing?" (2023), table 4. A small ResNet
on Fashion-MNIST stands for ResNet-34 on ImageNet100, and one epoch for five: see README.md. Runs that results.csv holds
are not repeated, so that a command that was stopped goes on where it was.

    python run.py [--workers 2] [--output table4] [--extended]
    python run.py --tables-only --output results
"""

import argparse
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from pathlib import Path

from outcomes import Outcome, add, read, write  # type: ignore[import-not-found]
from report import write_report  # type: ignore[import-not-found]
from rows import DENSE_ROW, Arm, extended_arms, position, table_arms  # type: ignore[import-not-found]
from training import Setup, checkpoint, retrain, speedups, train_dense  # type: ignore[import-not-found]

RESULTS = "results.csv"
#: Folder of the dense networks, which a run that goes on prunes again.
DENSE_FOLDER = "dense"


def train(setup: Setup, arms: Sequence[Arm], seeds: Sequence[int], pool: Executor, output: Path) -> None:
    """Do all runs that results.csv doesn't hold yet: the dense trainings first, the longest retrainings next.

    Args:
        setup: Length of the dense training, and images.
        arms: Retrainings.
        seeds: Seeds of each.
        pool: Does the runs; each takes one thread.
        output: Folder of results.csv and the dense networks.

    Raises:
        SystemExit: It holds a run of the same name that was done otherwise.
    """
    path, folder = output / RESULTS, output / DENSE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    done = {outcome.key: outcome for outcome in read(path)}
    for arm in arms:
        for seed in seeds:
            held = done.get((arm.row, arm.ratio, seed))
            if held is not None and held.arm != arm:
                raise SystemExit(f"{path} holds {held.arm}, and this command would do {arm}: choose another --output.")
    write(done.values(), path)
    pending = [(arm, seed) for arm in arms for seed in seeds if (arm.row, arm.ratio, seed) not in done]
    pending.sort(key=lambda task: -task[0].epochs)
    print(f"{len(arms) * len(seeds) - len(pending)} retrainings are in {path}, {len(pending)} to do.", flush=True)
    kept = frozenset(arm.pruned_after for arm in arms)
    waiting = sorted({seed for _, seed in pending})
    missing = [seed for seed in waiting if not _has_dense(done, folder, seed, kept)]
    for outcome in _finished([pool.submit(train_dense, setup, kept, seed, folder) for seed in missing]):
        if outcome.key not in done:
            add(outcome, path)
    for outcome in _finished([pool.submit(retrain, setup, arm, seed, folder) for arm, seed in pending]):
        add(outcome, path)


def _has_dense(done: dict[tuple[str, float, int], Outcome], folder: Path, seed: int, epochs: frozenset[int]) -> bool:
    is_trained = (DENSE_ROW, 0.0, seed) in done
    return is_trained and all(checkpoint(folder, seed, epoch).is_file() for epoch in epochs)


def _finished(futures: "Sequence[Future[Outcome]]") -> Iterator[Outcome]:
    """The runs in the order in which they end, told on the way."""
    started = time.perf_counter()
    for number, future in enumerate(as_completed(futures), 1):
        outcome = future.result()
        minutes = (time.perf_counter() - started) / 60
        name = f"{outcome.arm.row} at {outcome.arm.ratio:g}, seed {outcome.seed}"
        print(f"{number}/{len(futures)} {name}: {100 * outcome.top1:.2f} % ({minutes:.0f} min)", flush=True)
        yield outcome


def write_tables(output: Path) -> None:
    """Everything that follows from results.csv, whose lines are put in order."""
    outcomes = read(output / RESULTS)
    if not outcomes:
        raise SystemExit(f"{output / RESULTS} holds no runs.")
    outcomes.sort(key=lambda outcome: (position(outcome.arm.row), outcome.arm.ratio, outcome.seed))
    write(outcomes, output / RESULTS)
    print(write_report(outcomes, output))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", type=Path, default=Path("table4"), help="folder of the results")
    parser.add_argument("--extended", action="store_true", help="longer retrainings too, and more networks")
    parser.add_argument("--tables-only", action="store_true", help="train nothing: make the tables again")
    arguments = parser.parse_args()
    if not arguments.tables_only:
        factors = speedups()
        arms = table_arms(factors) + (extended_arms(factors) if arguments.extended else [])
        with ProcessPoolExecutor(arguments.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            train(Setup(), arms, arguments.seeds, pool, arguments.output)
    write_tables(arguments.output)


if __name__ == "__main__":
    main()
