"""Whether it helps to follow the advice of a diagnosis: the share of the cases with advice whose accuracy rises.

Cases are drawn from a seed: a small network, a share of its filters, and a retraining, half of them with a fault in
their schedule (`tests.recovery.planted`). Of each piece of advice that the diagnosis gives the cheapest is followed:
the retraining that it names, a smaller ratio, or augmented data. Accuracy is that on 3,000 test images, which the
diagnosis doesn't see. Some 5 minutes on one core.

Run from the top folder: python -m benchmarks.advice [--seed 10] [--cases 24]
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.tables import finish
from tests.recovery.planted import Case, Outcome, Task, drawn, followed

LIMIT = 0.85
#: A smaller ratio prunes so much less, and augmented data are these.
LESS = 0.5
AUGMENT = ("flip", "shift:1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--cases", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, advised, helped = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        task = Task(Path(folder), images=2000, seed=options.seed)
        for case in drawn(options.seed, options.cases):
            outcome = task.run(case.pipeline)
            diagnosis = outcome.diagnosis
            row = [f"{case.ratio:g}", f"{case.epochs} of {case.schedule}", f"{outcome.accuracy:.1f}", diagnosis.verdict]
            if diagnosis.advice:
                after = follow(task, case, outcome).accuracy
                advised += 1
                helped += after > outcome.accuracy
                row += [diagnosis.advice[0], f"{after - outcome.accuracy:+.1f}"]
            rows.append(row)
    share = helped / advised if advised else 0.0
    missed = (
        [] if share >= LIMIT else [f"advice helped in {100 * share:.0f} % of the cases, less than {100 * LIMIT:.0f}"]
    )
    title = f"Advice followed: {helped} of {advised} cases with advice gained accuracy"
    finish(title, ("ratio", "retraining", "accuracy", "verdict", "advice", "points"), rows, missed)


def follow(task: Task, case: Case, outcome: Outcome) -> Outcome:
    """The outcome of the first advice."""
    advice = outcome.diagnosis.advice[0]
    if outcome.diagnosis.verdict == "over-pruned":
        return task.run(replace(case, ratio=LESS * case.ratio).pipeline)
    if outcome.diagnosis.verdict == "over-fitted":
        return task.run(case.pipeline, augment=AUGMENT)
    return task.run(followed(advice, case))


if __name__ == "__main__":
    main()
