"""Speed of INT8 on this CPU beside float32: alone, with pruning, and as a goal in milliseconds.

    python -m benchmarks.int8_speed [--only int8 pruned goal]

ResNet-50 and MobileNetV2 with random weights, their batch norms drawn too, batch 1 at 224x224 on one thread of ONNX
Runtime, timed in turns with the dense network in float32. INT8 files are what `compile --target cpu-int8` writes, by
ranges of 16 random images. "pruned" is ResNet-50 pruned greedily to half its milliseconds by a cost model of float32,
and then quantized; "goal" is ``prune-filters{latency_speedup=5.5} calibrate``, which the compile holds by its closed
loop. Where /proc/cpuinfo shows no avx512_vnni the kernels are others, and the figures tell nothing. Some 10 minutes,
idle.
"""

import argparse
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.latency_target import NETWORKS
from benchmarks.tables import finish
from prunec.calibration.config import DataConfig
from prunec.calibration.data import load_data
from prunec.compiler.facts.settings import Settings
from prunec.compiler.stages.driver import compile_model
from prunec.passes.frontend import capture
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.latency import LatencyComparison, compare_latency, wall_clock
from prunec.runtime.numerics import random_inputs
from prunec.runtime.onnx_export import export_onnx

_PRUNE, _CALIBRATE = "prune-filters{{latency_speedup={}, round_to=16}}", "calibrate{samples=16}"
#: Case -> network, target and pipeline of the compiles in a row, and the least speed-up, or what is held to 10 %.
CASES = {
    "int8": (("ResNet-50", _CALIBRATE, 3.2), ("MobileNetV2", _CALIBRATE, 1.9)),
    "pruned": (("ResNet-50", f"{_PRUNE.format('2.0, allocation=greedy')} {_CALIBRATE}", 5.9),),
    "goal": (("ResNet-50", f"{_PRUNE.format('5.5')} {_CALIBRATE}", 5.5),),
}
_NEAR = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    parser.add_argument("--runs", type=int, default=60, help="measurements of each network (default 60)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if "avx512_vnni" not in Path("/proc/cpuinfo").read_text():
        sys.exit("This CPU has no avx512_vnni.")
    rows, missed = list[tuple[str, ...]](), list[str]()
    for case in options.only:
        for network, pipeline, asked in CASES[case]:
            with tempfile.TemporaryDirectory() as scratch:
                timed = run(network, pipeline, Path(scratch), options.runs, prune_first=case == "pruned")
            low, high = timed.speedup_interval
            rows.append((case, network, f"{asked}x", f"{timed.speedup:.2f}x [{low:.2f}, {high:.2f}]"))
            print(*rows[-1], flush=True)
            is_met = abs(timed.speedup / asked - 1) <= _NEAR if case == "goal" else timed.speedup >= asked
            if not is_met:
                missed.append(f"{case}, {network}: {timed.speedup:.2f}x")
    finish("INT8 on this CPU, over dense float32", ("case", "network", "asked", "measured [95 %]"), rows, missed)


def run(name: str, pipeline: str, folder: Path, runs: int, *, prune_first: bool) -> LatencyComparison:
    """A network compiled and timed beside itself."""
    network, inputs = NETWORKS[name]()
    dense = capture(network, inputs)
    export_onnx(dense, folder / "dense.onnx")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 3, 224, 224), dtype=np.uint8), rng.integers(0, 1000, 20)
    arrays = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    np.savez(folder / "data.npz", **arrays)
    data = load_data(DataConfig(train="npz:data.npz", test="npz:data.npz"), folder, seed=0)
    settings = Settings(latency_runs=5, allow_implausible=True)
    program = dense
    if prune_first:
        prune, _, pipeline = pipeline.partition("} ")
        compile_model(dense, "cpu", f"{prune}}}", None, folder / "pruned.bundle", settings=settings)
        program = type(dense).load(folder / "pruned.bundle" / "model.pt2", trust=True)
    compile_model(program, "cpu-int8", pipeline, data, folder / "int8.bundle", settings=settings)
    paths = folder / "dense.onnx", folder / "int8.bundle" / "model.onnx"
    inputs_of = random_inputs(dense, 1, 0)
    return compare_latency(*(wall_clock(partial(OnnxRuntimeSession(p), *inputs_of)) for p in paths), runs=runs)


if __name__ == "__main__":
    main()
