"""Every method on the example, one seed: evidence that each works, and no ranking.

    python -m benchmarks.methods [--only NAME ...] [--ratios 0.5 0.9] [--images 2000] [--table]

Each method of `prunec methods` compiles the example's checkpoint for the CPU at the MACs of
`prune-filters{ratio=R, round_to=1, min_channels=2, residual_streams=false}`, masks at a share R of zeros, and retrains
10 epochs by one schedule; what trains before it prunes has 5 epochs for that. `random` runs with three seeds, and once
from scratch. Every row goes into benchmarks/methods.csv at once, and a row that stands there isn't run again. `--table`
prints the file as docs/methods.md has it. A method more than one point below the mean of `random` at all ratios fails
it, unless docs/methods.md says why.
"""

import argparse
import csv
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import get_type_hints

from benchmarks.int8_example import EXAMPLE, example
from benchmarks.tables import finish
from examples.fashion_mnist.model import resnet
from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.compiler.facts.settings import Settings
from prunec.compiler.methods.catalogue import METHODS
from prunec.compiler.methods.method import Method
from prunec.compiler.methods.method_steps import method_steps
from prunec.compiler.pipeline.pipeline import Pipeline
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.stages.driver import compile_model
from prunec.passes.unknown import known
from prunec.runtime.target import Target

FILE = Path("benchmarks/methods.csv")
EPOCHS, SCHEDULE = 10, "cosine:0.02"
DENSE_EPOCHS, DENSE = 12, "cosine:0.1"
_BATCH = 64
CONTROL, CONTROL_SEEDS = "random", (0, 1, 2)
#: Points below the mean of the control at every ratio from which a method is looked into.
_WORSE_POINTS = 1.0
#: Share of the control's MACs that those of a method may differ by.
_NEAR = 0.02
#: Methods below that of which docs/methods.md says why.
_EXPLAINED = ("sfp", "sfp-fpgm", "snip", "provable-hybrid")
_CPU = Target.parse("cpu")


@dataclass(frozen=True)
class Row:
    """A run: shares and top-1 in percent, before any retraining and behind it."""

    method: str
    ratio: float
    seed: int
    images: int
    macs: int
    zeros: float
    before: float
    after: float
    seconds: float

    @property
    def key(self) -> tuple[str, float, int, int]:
        return self.method, self.ratio, self.seed, self.images


def read_rows() -> list[Row]:
    if not FILE.exists():
        return []
    kinds = get_type_hints(Row)
    with FILE.open(newline="") as file:
        return [Row(**{name: kinds[name](text) for name, text in row.items()}) for row in csv.DictReader(file)]


def write_row(row: Row) -> None:
    is_new = not FILE.exists()
    with FILE.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(vars(row))


def pipeline_of(method: Method, ratio: float, data: Data) -> Pipeline:
    rounding = {"round_to": 1, "min_channels": 2, "residual_streams": False} if method.structure == "filters" else {}
    epochs = round(EPOCHS / (1 - method.regime_share)) if method.hooks else EPOCHS
    tables: dict[str, dict[str, object]] = {
        method.step_of("ratio"): {"ratio": ratio, **rounding},
        "recover": {"epochs": epochs, "schedule": SCHEDULE, "probe": 0, "batch_size": _BATCH},
    }
    if method.base != "trained":
        kept = (DENSE_EPOCHS - EPOCHS) * (len(data.train) // _BATCH)
        tables["pretrain"] = {"epochs": DENSE_EPOCHS, "schedule": DENSE, "keep_step": kept}
    return Pipeline(tuple(each.step for each in method_steps(method, tables, _CPU, has_data=True)))


def run(method: Method, ratio: float, seed: int, data: Data, folder: Path) -> Iterator[Row]:
    """The row of a method; behind it that of its architecture from scratch, for the control's first seed."""
    dense = parse_schedule(DENSE, epochs=DENSE_EPOCHS) if method.base == "trained" else None
    controls = ("scratch-e",) if method.name == CONTROL and seed == CONTROL_SEEDS[0] else ()
    settings = Settings(latency_runs=3, build_engine=False, seed=seed, controls=controls, module=resnet())
    if dense is not None:
        settings = replace(settings, pretraining=dense, pretraining_optimizer="sgd")
    started, steps = time.monotonic(), pipeline_of(method, ratio, data)
    report = compile_model(example(), _CPU, steps, data, folder, settings=settings, force=True)
    before = known(report.accuracy.pruned if method.structure == "filters" else report.accuracy.sparse)
    after = known(report.accuracy.recovered)
    assert before is not None
    assert after is not None
    macs, zeros = report.macs.compiled, report.parameters.zero_fraction
    spent, images = time.monotonic() - started, len(data.train)
    yield Row(method.name, ratio, seed, images, macs, round(zeros, 4), 100 * before, 100 * after, round(spent, 1))
    for control in report.controls if controls else ():
        top1, macs = known(control.accuracy), known(control.macs)
        if top1 is not None and macs is not None:
            yield Row(control.name, ratio, seed, images, macs, 0.0, float("nan"), 100 * top1, 0.0)


def judge(rows: Sequence[Row]) -> list[str]:
    """What differs from the budget, and what is worse than chance at all ratios."""
    missed, control = [], [row for row in rows if row.method == CONTROL]
    means = {
        ratio: statistics.mean(row.after for row in control if row.ratio == ratio)
        for ratio in {r.ratio for r in control}
    }
    macs = {row.ratio: row.macs for row in control}
    for name in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == name and row.ratio in means]
        if name in METHODS and METHODS[name].structure == "filters":
            missed += [
                f"{name}, {row.ratio:g}: {row.macs} MACs, the control has {macs[row.ratio]}"
                for row in own
                if abs(row.macs / macs[row.ratio] - 1) > _NEAR
            ]
        is_worse = own and all(row.after < means[row.ratio] - _WORSE_POINTS for row in own)
        if is_worse and name not in _EXPLAINED:
            missed.append(f"{name}: worse than {CONTROL} by more than {_WORSE_POINTS:g} points at every ratio")
    return missed


def print_table(rows: Sequence[Row]) -> None:
    """One line for each method and seed: at each ratio what is left, and top-1 before and after retraining."""
    ratios = sorted({row.ratio for row in rows})
    cells = "".join(f" ratio {ratio:g} | before | after |" for ratio in ratios)
    print(f"| method |{cells}\n|---|{'---|---|---|' * len(ratios)}")
    by_ratio = {(row.method, row.seed, row.ratio): row for row in rows}
    for method, seed in dict.fromkeys((row.method, row.seed) for row in rows):
        title = f"{method}, seed {seed}" if method == CONTROL else method
        cells = " | ".join(_cells(by_ratio.get((method, seed, ratio))) for ratio in ratios)
        print(f"| {title} | {cells} |")


def _cells(row: Row | None) -> str:
    if row is None:
        return "| |"
    left = f"{row.zeros:.1%} zeros" if row.zeros else f"{row.macs / 1e6:.2f} M"
    return f"{left} | {'' if math.isnan(row.before) else format(row.before, '.1f')} | {row.after:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--ratios", nargs="+", type=float, default=(0.5, 0.9))
    parser.add_argument("--images", type=int, default=2000, help="training images, of which a tenth validates")
    parser.add_argument("--table", action="store_true", help="print what stands in the file, and run nothing")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.table:
        print_table(read_rows())
        return
    file = "npz:fashion_mnist.npz"
    config = DataConfig(file, file, (0.2860,), (0.3530,), augment=("flip", "shift:1"), limit_train=options.images)
    data = load_data(config, EXAMPLE, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        for ratio in options.ratios:
            for name in options.only:
                for seed in CONTROL_SEEDS if name == CONTROL else CONTROL_SEEDS[:1]:
                    if (name, ratio, seed, len(data.train)) in {row.key for row in read_rows()}:
                        continue
                    for row in run(METHODS[name], ratio, seed, data, Path(scratch, "m.bundle")):
                        write_row(row)
                        print(row, flush=True)
    rows = [row for row in read_rows() if row.images == len(data.train)]
    table = [(r.method, f"{r.ratio:g}", f"{r.macs}", f"{r.before:.1f}", f"{r.after:.1f}") for r in rows]
    finish("Methods on the example", ("method", "ratio", "MACs", "before", "after"), table, judge(rows))


if __name__ == "__main__":
    main()
