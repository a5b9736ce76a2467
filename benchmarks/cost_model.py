"""Error of measured cost models on variants that they were not fitted to, and the seconds that they take.

    python -m benchmarks.cost_model [tv:resnet18 ...]

Each network of the zoo is measured by `measure_costs` as users measure it (ONNX Runtime, batch 1, one thread). Then
other variants, of another seed, are timed in the same way: their layers and wholes against what the model says of them.
Aligned variants, whose widths are multiples of what engines compute in blocks, and mixed ones stand apart.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import numpy as np

from benchmarks.tables import finish
from prunec.passes.costs.counting import workload_of
from prunec.passes.coupling import analyse
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.runtime import children
from prunec.runtime.costs.fitting import MeasuredVariants, errors_on
from prunec.runtime.costs.layer_times import Subject, time_onnxruntime
from prunec.runtime.costs.measuring import measure_costs
from prunec.runtime.costs.variants import variant, variant_widths
from prunec.runtime.engines.protocol import EngineInfo
from prunec.runtime.numerics import random_inputs
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.target import Target
from tests.architectures.redraw import redraw_
from tests.zoo.corpus import construct, example

NETWORKS = (
    *("tv:resnet18", "tv:resnet50", "tv:mobilenet_v2", "tv:efficientnet_b0", "timm:deit_tiny_patch16_224"),
    "det:retinanet_resnet50_fpn",
)
_OTHER_SEED, _OTHERS = 1000, 8


#: Limits: relative error of a layer, weighted by its time, and of the whole; seconds for ResNet-50.
_LIMITS, _SECONDS = {"layers": 0.05, "network": 0.03}, 60


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    rows, missed = [], []
    for name in parser.parse_args().networks:
        program = capture(redraw_(construct(name).eval(), 0), (example(name),))
        started = time.monotonic()
        costs = measure_costs(program, Target.parse("cpu"))
        seconds = time.monotonic() - started
        if name == "tv:resnet50" and seconds > _SECONDS:
            missed.append(f"{name}: {seconds:.0f} s")
        measured = _others(program)
        is_mixed = np.arange(_OTHERS) % 4 == 1
        for title, chosen in (("aligned", ~is_mixed), ("mixed", is_mixed)):
            errors = errors_on(costs, measured.only(np.flatnonzero(chosen) + 1))
            rows.append((name, f"{seconds:.0f}", title, *(f"{errors[each]:.1%}" for each in _LIMITS)))
            over = [each for each, limit in _LIMITS.items() if errors[each] > limit]
            missed += [f"{name}, {title} variants, {each}: {errors[each]:.1%}" for each in over]
        print(*rows[-2:], f"by the model itself: {costs.error}", f"load {os.getloadavg()[0]:.1f}", sep="\n", flush=True)
    finish("cost models", ("network", "s", "variants", "layer", "network"), rows, missed)


def _others(program: Program) -> MeasuredVariants:
    coupling = analyse(program)
    workload = workload_of(program, coupling)
    counts = np.array([group.count for group in coupling.groups], dtype=np.int64)
    kept = variant_widths(counts, 1 + _OTHERS, _OTHER_SEED)
    weights = tuple(operation.weight for operation in workload.operations)
    with tempfile.TemporaryDirectory() as folder:
        subjects = []
        for number, widths in enumerate(kept):
            path = Path(folder) / f"{number}.onnx"
            export_onnx(variant(program, coupling, widths, _OTHER_SEED + number), path)
            subjects.append(Subject(EngineInfo("onnxruntime", path, "", run_on_device=True), path, weights))
        inputs = random_inputs(program, 1, 0)
        times = children.call("ONNX Runtime profiled variants", time_onnxruntime, subjects, inputs, 1, 10.0, 1)
    return MeasuredVariants(workload.at(kept), times.layers, times.networks)


if __name__ == "__main__":
    main()
