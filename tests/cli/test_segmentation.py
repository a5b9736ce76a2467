"""A segmentation network: maps as labels, the user's own loss and metric, an upsampling decoder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunec.calibration.user_code import import_callable
from tests.cli.conftest import Prunec

MODEL = """
import torch
from torch import nn
from torch.nn.functional import cross_entropy

class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.out = nn.Sequential(nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1))

    def forward(self, x):
        fine = self.down1(x)
        return self.out(torch.cat([fine, self.up(self.down2(fine))], dim=1))

def network():
    torch.manual_seed(0)
    return Segmenter()

def loss(outputs, labels):
    return cross_entropy(outputs, labels, ignore_index=255)

def mean_iou(outputs, labels):
    found, counted = outputs.argmax(1), labels != 255
    scores = []
    for label in range(3):
        both = ((found == label) & (labels == label)).flatten(1).sum(1)
        either = (((found == label) | (labels == label)) & counted).flatten(1).sum(1)
        scores.append(torch.where(either > 0, both / either.clamp(min=1), 1.0))
    return torch.stack(scores).mean(0)
"""
CONFIG = """
[model]
factory = "model:network"
input = [1, 16, 16]
[data]
train = "npz:maps.npz"
test = "npz:maps.npz"
loss = "model:loss"
metric = "model:mean_iou"
[recipe.prune-filters]
ratio = 0.25
[recipe.recover]
epochs = 8
schedule = "clr:0.1"
batch_size = 16
clip_norm = 5.0
"""


@pytest.fixture
def maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bright and dark squares on a noisy ground; the edge of every map is not labelled."""
    random, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 240), ("test", 60)):
        images, labels = random.normal(128, 10, (count, 16, 16)), np.zeros((count, 16, 16), np.int64)
        for image, label in zip(images, labels, strict=True):
            for kind, level in ((1, 70), (2, -70)):
                top, left = random.integers(0, 11, 2)
                image[top : top + 5, left : left + 5] = 128 + level
                label[top : top + 5, left : left + 5] = kind
            label[0] = 255
        arrays |= {f"{part}_images": images.clip(0, 255).astype(np.uint8), f"{part}_labels": labels}
    np.savez(tmp_path / "maps.npz", **arrays)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "prunec.toml").write_text(CONFIG)
    torch.save(import_callable("model:network", tmp_path)().state_dict(), tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_segmentation_network_is_pruned_and_retrained(prunec: Prunec, maps: Path) -> None:
    outcome = prunec("compile", "model.pt", "--target", "a100-2:4", "--no-engine")
    assert outcome.code == 0, outcome.err
    report = json.loads((maps / "model.a100-2_4-fp16.bundle/report.json").read_text())
    assert report["accuracy"]["metric"] == "model:mean_iou"
    assert report["recovery"]["loss"] == "model:loss"
    assert report["accuracy"]["recovered"] > 0.8
    assert report["accuracy"]["recovered"] > report["accuracy"]["dense"] + 0.2
    assert report["accuracy"]["exported"] == pytest.approx(report["accuracy"]["recovered"], abs=0.01)


def test_maps_need_a_loss_of_their_own(prunec: Prunec, maps: Path) -> None:
    config = maps / "prunec.toml"
    config.write_text(config.read_text().replace('loss = "model:loss"\nmetric = "model:mean_iou"\n', ""))
    outcome = prunec("compile", "model.pt", "--target", "cpu")
    assert outcome.code == 9
    assert "labels are maps of shape [16, 16]" in outcome.err


def test_maps_can_t_be_augmented_without_their_images(prunec: Prunec, maps: Path) -> None:
    config = maps / "prunec.toml"
    config.write_text(config.read_text().replace("loss =", 'augment = ["flip"]\nloss ='))
    outcome = prunec("compile", "model.pt", "--target", "cpu")
    assert outcome.code == 2
    assert "maps that would have to move too" in outcome.err
