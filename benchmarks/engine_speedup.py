"""Whether fewer MACs mean less time: ResNet-50 pruned by stage, under ONNX Runtime on one thread.

Channel counts that are no multiple of 16 waste vector lanes. The same ratios are measured as they are and with widths
rounded to multiples of 16, each interleaved with the dense network. With rounding, the measured speed-up must be
at least 0.95 of the MAC speed-up.

Run from the top folder: python -m benchmarks.engine_speedup
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.tables import finish
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.latency import Timer, compare_latency, wall_clock
from prunec.runtime.onnx_export import export_onnx
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import resnet50

#: Ratios of the four stages, on the first two convolutions of every bottleneck: 2.31x in MACs without rounding.
STAGE_RATIOS = (0.6, 0.6, 0.6, 0.21)
REQUIRED_SHARE = 0.95


def pruned(program: Program, round_to: int) -> Program:
    """ResNet-50 with the stage ratios applied."""
    ratios = {
        f"layer{stage}.*.{name}": ratio for stage, ratio in enumerate(STAGE_RATIOS, 1) for name in ("conv1", "conv2")
    }
    return PruneFilters(ratio=ratios, round_to=round_to).run(program).program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30, help="measurements of each network (default 30)")
    parser.add_argument("--batch", type=int, default=1, help="images per run (default 1)")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (default 224)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shape = (options.batch, 3, options.size, options.size)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    dense = capture(redraw_(resnet50(), seed=0), (torch.zeros(2, *shape[1:]),))
    rows, missed = [], []
    with tempfile.TemporaryDirectory() as folder:

        def runner(program: Program, name: str) -> Timer:
            path = Path(folder) / f"{name}.onnx"
            export_onnx(program, path)
            return wall_clock(partial(OnnxRuntimeSession(path, threads=1), images))

        run_dense = runner(dense, "dense")
        for round_to in (1, 16):
            program = pruned(dense, round_to)
            latency = compare_latency(run_dense, runner(program, f"pruned{round_to}"), runs=options.runs)
            macs = dense.macs() / program.macs()
            share = latency.speedup / macs
            low, high = latency.speedup_interval
            rows.append(
                (
                    f"multiples of {round_to}" if round_to > 1 else "as they are",
                    f"{latency.dense.median:.1f}",
                    f"{latency.compiled.median:.1f}",
                    f"{macs:.2f}x",
                    f"{latency.speedup:.2f}x [{low:.2f}, {high:.2f}]",
                    f"{share:.3f}",
                )
            )
            if round_to > 1 and share < REQUIRED_SHARE:
                missed.append(
                    f"rounded, {latency.speedup:.2f}x is {share:.3f} of {macs:.2f}x, required {REQUIRED_SHARE}"
                )
    columns = ("widths", "dense (ms)", "pruned (ms)", "MACs", "measured [95 %]", "measured / MACs")
    finish(f"ResNet-50, ONNX Runtime, one thread, batch {options.batch}", columns, rows, missed)


if __name__ == "__main__":
    main()
