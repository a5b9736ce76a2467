"""Accuracy of 2:4 by magnitude, Wanda and SparseGPT: after masking, with batch norms measured anew, and retrained.

The networks are the example and a small MobileNet that is trained first, on the example's data. Top-1 on the test
images, the least and the most over calibration inputs of three seeds. SparseGPT must keep more than magnitude with its
batch norms measured anew, and Wanda at most a point less, in the mean.

Run from the top folder: python -m benchmarks.one_shot_accuracy
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from benchmarks.tables import finish
from prunec.calibration.data import Data
from prunec.calibration.one_shot import calibration_inputs, sparsify_by_inputs
from prunec.calibration.statistics import reestimate_batchnorm
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Project
from prunec.compiler.recovery.recover import Recover, recover
from prunec.passes import Program, capture
from prunec.passes.sparsify import Sparsify
from tests.architectures.mobilenet_v2 import InvertedResidual, conv_norm_relu6

EXAMPLE = Path("examples/fashion_mnist/model.pt")
_SEEDS = (0, 1, 2)
#: (input channels, output channels, stride) of the inverted residuals.
_BLOCKS = ((16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 40, 2), (40, 40, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=128, help="calibration inputs (default 128)")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of the MobileNet's training (default 12)")
    parser.add_argument("--retrain", type=int, default=1, help="epochs of the retraining (default 1)")
    options = parser.parse_args()
    project = Project.find(EXAMPLE)
    data = project.required_data()
    example = project.load(EXAMPLE, ModelOptions()).program.eval()
    rows, missed = [], []
    for name, program in (("example", example), ("MobileNet", mobilenet(data, options.epochs))):
        found = {
            criterion: [list(stages(program, criterion, data, seed, options)) for seed in _SEEDS]
            for criterion in ("magnitude", "wanda", "sparsegpt")
        }
        rows.append((name, "dense", f"{percent(program, data):.1f}", "", ""))
        rows += [(name, c, *(spread(stage) for stage in zip(*runs, strict=True))) for c, runs in found.items()]
        asked = statistics.mean(run[1] for run in found["magnitude"])
        kept = {c: statistics.mean(run[0] for run in found[c]) for c in ("wanda", "sparsegpt")}
        if kept["sparsegpt"] <= asked:
            missed.append(f"{name}: SparseGPT keeps {kept['sparsegpt']:.1f} %, magnitude {asked:.1f}")
        if kept["wanda"] < asked - 1:
            missed.append(f"{name}: Wanda keeps {kept['wanda']:.1f} %, magnitude {asked:.1f}")
    columns = ("network", "criterion", "masked", "batch norms measured anew", f"{options.retrain} epochs")
    finish("Top-1 of 2:4 on the test images", columns, rows, missed)


def stages(program: Program, criterion: str, data: Data, seed: int, options: argparse.Namespace) -> Iterator[float]:
    """Accuracy in percent after masking, with batch norms measured anew behind it, and retrained from there."""
    batches = data.train.batches(options.samples, epoch=0, seed=seed)
    inputs = calibration_inputs(batches, options.samples)
    sparsify = Sparsify(criterion=criterion)
    result = sparsify_by_inputs(program, sparsify, inputs) if sparsify.needs else sparsify.run(program)
    yield percent(result.program, data)
    normed = reestimate_batchnorm(result.program, inputs).program
    yield percent(normed, data)
    retrain = Recover(epochs=options.retrain, schedule="cosine:0.01", keep="last")
    yield percent(recover(normed, retrain, data, seed=seed).program, data)


def mobilenet(data: Data, epochs: int) -> Program:
    """A MobileNetV2 of five blocks, trained on the data."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
        *(InvertedResidual(before, after, stride, 4) for before, after, stride in _BLOCKS),
        conv_norm_relu6(40, 128, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    inputs, _ = next(iter(data.train.batches(2)))
    training = Recover(epochs=epochs, schedule="clr:0.1", keep="last")
    return recover(capture(network.eval(), (inputs,)), training, data).program.eval()


@torch.no_grad()
def percent(program: Program, data: Data) -> float:
    """Top-1 accuracy on the test data."""
    assert data.test is not None
    evaluated = program.clone().eval()
    hits = [(evaluated(inputs).argmax(1) == labels).float() for inputs, labels in data.test.batches(500)]
    return 100 * float(torch.cat(hits).mean())


def spread(values: tuple[float, ...]) -> str:
    """The least and the most."""
    return f"{min(values):.1f} to {max(values):.1f}"


if __name__ == "__main__":
    main()
