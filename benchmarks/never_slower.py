"""Whether a compile that passes without a word is ever slower than the dense network: random recipes on four networks.

Every recipe is compiled for `cpu` without data. Of a run that passes and warns of nothing, the dense network's file and
the bundle's are measured once more, interleaved, in sessions of their own: it counts as slower where the upper end of
that measurement's 95 % interval is below 1.

Run from the top folder: python -m benchmarks.never_slower [--recipes 200] [--seed 0]
"""

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.tables import finish
from prunec.compiler import compile_model
from prunec.compiler.facts.settings import Settings
from prunec.compiler.report.report import Report
from prunec.passes.errors import PrunecError
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.latency import LatencyComparison, compare_latency, wall_clock
from prunec.runtime.onnx_export import export_onnx
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import cifar_resnet
from tests.architectures.vgg import vgg16_cifar
from tests.architectures.vit import ViT


@dataclass(frozen=True)
class Network:
    """One of the four networks and the side of its images."""

    name: str
    make: Callable[[], nn.Module]
    side: int


NETWORKS = (
    Network("ResNet-20, width 32", partial(cifar_resnet, 20, width=32), 32),
    Network("MobileNetV2", partial(mobilenet_v2, 10), 96),
    Network("VGG-16", vgg16_cifar, 32),
    Network("ViT, 6 blocks of 192", partial(ViT, 96, 16, 192, 6, 3, 10), 96),
)


def recipe(generator: random.Random) -> str:
    """A random prune-filters step."""
    amount = generator.choice(("ratio", "ratio", "speedup", "latency_speedup"))
    value = generator.uniform(0.05, 0.9) if amount == "ratio" else generator.uniform(1.05, 4.0)
    options = {
        amount: f"{value:.2f}",
        "criterion": generator.choice(("l1", "l2", "random")),
        "round_to": generator.choice((1, 1, 2, 3, 8, 16)),
        "min_channels": generator.choice((1, 1, 4, 8, 11)),
    }
    if generator.random() < 0.2:
        options["residual_streams"] = "false"
    if generator.random() < 0.2:
        options["attention"] = generator.choice(("heads", "none"))
    return f"prune-filters{{{', '.join(f'{name}={value}' for name, value in options.items())}}}"


def silent(report: Report) -> bool:
    """Whether a run passed and warned of nothing."""
    return report.exit_code == 0 and not report.warnings


def measured(dense: Path, bundle: Path, image: np.ndarray, runs: int) -> LatencyComparison:
    """Dense against compiled, in new sessions."""
    timers = [wall_clock(partial(OnnxRuntimeSession(path), image)) for path in (dense, bundle / "model.onnx")]
    return compare_latency(*timers, runs=runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=int, default=200, help="recipes in all (default 200)")
    parser.add_argument("--runs", type=int, default=200, help="measurements of each network (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator, missed = random.Random(options.seed), list[str]()
    outcomes: dict[str, Counter[str]] = {network.name: Counter() for network in NETWORKS}
    with tempfile.TemporaryDirectory() as scratch:
        folder, programs = Path(scratch), dict[str, tuple[Program, Path]]()
        for number in range(options.recipes):
            network = NETWORKS[number % len(NETWORKS)]
            if network.name not in programs:
                program = capture(redraw_(network.make().eval(), 0), (torch.zeros(1, 3, network.side, network.side),))
                dense = folder / f"{number}.onnx"
                export_onnx(program, dense)
                programs[network.name] = program, dense
            program, dense = programs[network.name]
            steps, bundle = recipe(generator), folder / "run.bundle"
            try:
                report = compile_model(program, "cpu", steps, None, bundle, settings=Settings(), force=True)
            except PrunecError as error:
                outcomes[network.name][f"refused: {type(error).__name__}"] += 1
                continue
            if not silent(report):
                outcomes[network.name]["failed" if report.exit_code else "passed with a warning"] += 1
                continue
            image = np.random.default_rng(0).standard_normal((1, 3, network.side, network.side), dtype=np.float32)
            latency = measured(dense, bundle, image, options.runs)
            is_slower = latency.speedup_interval[1] < 1
            outcomes[network.name]["slower" if is_slower else "passed"] += 1
            if is_slower:
                low, high = latency.speedup_interval
                missed.append(f"{network.name}, {steps}: {latency.speedup:.2f}x [{low:.2f}, {high:.2f}] without a word")
    rows = [
        (name, ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
        for name, counts in outcomes.items()
    ]
    finish(f"{options.recipes} random recipes for cpu", ("network", "outcomes"), rows, missed)


if __name__ == "__main__":
    main()
