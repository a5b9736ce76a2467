"""Calibration of ResNet-50: memory by the number of images, and time beside ONNX Runtime's MinMax calibrator.

prunec takes histograms of all tensors that are put on grids and chooses their ranges; ONNX Runtime takes the least and
the largest value of every tensor of the same network, batch norms folded. Both see the same random images in batches of
8, with random weights, on one thread. Each count of images runs in a process of its own. Seconds are processor time of
calibration alone, memory is the largest resident set while it runs, weights and libraries included.

Run from the top folder: python -m benchmarks.calibration
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.coupling import _network
from benchmarks.tables import finish

NETWORK = "tv:resnet50"
#: Peak memory with all images over that with few, at most.
MOST_MEMORY = 1.2
#: Time over that of ONNX Runtime's calibrator, at most.
MOST_TIME = 1.3
_BATCH = 8


@dataclass(frozen=True)
class Run:
    """Tensors looked at, seconds of processor time, of it those of choosing ranges, and the peak of memory in MiB."""

    tensors: int
    seconds: float
    choosing: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="images of the long runs (default 256)")
    parser.add_argument("--few", type=int, default=16, help="images of the short run, a batch or more (default 16)")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(asdict(_TOOLS[given.worker[0]](int(given.worker[1])))))
        return
    few, own, peer = (
        _measured(*each) for each in (("prunec", given.few), ("prunec", given.images), ("onnxruntime", given.images))
    )
    rows = [
        (tool, f"{images}", f"{run.tensors}", f"{run.seconds:.1f}", f"{run.choosing:.2f}", f"{run.peak_mib:.0f}")
        for tool, images, run in (
            ("prunec", given.few, few), ("prunec", given.images, own), ("ONNX Runtime", given.images, peer)
        )
    ]  # fmt: skip
    memory, ratio = own.peak_mib / few.peak_mib, own.seconds / peer.seconds
    rows.append(("ratios", "", "", f"{ratio:.2f}", "", f"{memory:.2f}"))
    missed = []
    if memory > MOST_MEMORY:
        missed.append(f"{given.images} images take {memory:.2f} times the memory of {given.few}, limit {MOST_MEMORY}")
    if ratio > MOST_TIME:
        missed.append(f"calibration takes {ratio:.2f} times ONNX Runtime's, the limit is {MOST_TIME}")
    columns = ("tool", "images", "tensors", "seconds", "of it ranges", "MiB")
    finish("Calibration of ResNet-50 on one thread", columns, rows, missed)


def _measured(tool: str, images: int) -> Run:
    """What a process of its own measures."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.calibration", "--worker", tool, str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tool} with {images} images failed:\n{done.stderr}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def _program() -> Any:
    from prunec.passes import capture
    from prunec.passes.quantization.batchnorm_folding import fold_batch_norms

    network, x = _network(NETWORK)
    return fold_batch_norms(capture(network, (x,))).program


def _images(count: int) -> Iterator[Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    for start in range(0, count, _BATCH):
        yield torch.randn(min(_BATCH, count - start), 3, 224, 224, generator=generator)


def _forget_peak() -> None:
    """Let the peak of this process's memory be counted from here (proc(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _prunec(images: int) -> Run:
    from prunec.calibration.quantization.observing import observe
    from prunec.calibration.quantization.range_methods import RangeMethod, ranges_of
    from prunec.passes.quantization.placement import place

    program = _program()
    placement = place(program)
    _forget_peak()
    started = time.process_time()
    histograms = observe(program, placement, _images(images))
    observed = time.process_time()
    ranges_of(placement, histograms, RangeMethod("mse"), "affine")
    ended = time.process_time()
    return Run(len(histograms), ended - started, ended - observed, _peak_mib())


def _onnxruntime(images: int) -> Run:
    import onnxruntime
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    from prunec.runtime.onnx_export import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        path, augmented = Path(folder, "model.onnx"), str(Path(folder, "augmented.onnx"))
        program = _program()
        export_onnx(program, path)
        calibrator = create_calibrator(path, augmented_model_path=augmented, calibrate_method=CalibrationMethod.MinMax)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = (
            onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        )  # as the calibrator has it
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        calibrator.infer_session = onnxruntime.InferenceSession(augmented, options, ["CPUExecutionProvider"])
        reader = _Reader(images, program.inputs[0].name)
        _forget_peak()
        started = time.process_time()
        calibrator.collect_data(reader)
        found = calibrator.compute_data()
        return Run(len(found.data), time.process_time() - started, 0.0, _peak_mib())


class _Reader:
    """The images as a calibrator of ONNX Runtime asks for them."""

    def __init__(self, images: int, name: str) -> None:
        self.batches, self.name = _images(images), name

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch.numpy()}


_TOOLS: dict[str, Callable[[int], Run]] = {"prunec": _prunec, "onnxruntime": _onnxruntime}

if __name__ == "__main__":
    main()
