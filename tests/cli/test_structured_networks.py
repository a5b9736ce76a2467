"""Networks of token ids and several outputs, from prunec.toml and data by name to the bundle and back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunec.calibration.user_code import import_callable
from tests.cli.conftest import Prunec

MODEL = """
from collections import OrderedDict
from dataclasses import dataclass, fields
import torch
from torch import nn
from torch.nn.functional import cross_entropy

@dataclass
class Output(OrderedDict):
    logits: torch.Tensor = None
    hidden_states: tuple = None
    pooled: torch.Tensor = None
    def __post_init__(self):
        for field in fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.norm = nn.Embedding(30, 16), nn.LayerNorm(16)
        self.wide, self.narrow, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 3)

    def forward(self, input_ids, token_type_ids=None, attention_mask=None):
        first = self.norm(self.table(input_ids))
        hidden = first + self.narrow(self.wide(first).relu())
        weights = attention_mask[..., None].float()
        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        return Output(logits=self.head(pooled), hidden_states=(first, hidden), pooled=pooled)

def network():
    torch.manual_seed(0)
    return Text()

def loss(outputs, labels):
    return cross_entropy(outputs.logits, labels) + 1e-3 * outputs.pooled.pow(2).mean()

def metric(outputs, labels):
    assert outputs["hidden_states"][1].ndim == 3
    return (outputs.logits.argmax(1) == labels).float()
"""
CONFIG = """
[model]
factory = "model:network"
dims = {tokens = "3:6:12"}
inputs = [
    {name = "input_ids", shape = ["tokens"], dtype = "int64", high = 30},
    {name = "attention_mask", shape = ["tokens"], dtype = "int64", high = 2, optional = true},
]
[data]
train = "npz:data.npz"
test = "npz:data.npz"
loss = "model:loss"
metric = "model:metric"
[recipe.prune-filters]
ratio = 0.25
[recipe.recover]
epochs = 3
schedule = "constant:0.1"
batch_size = 32
probe = 0
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sequences of which a third of the vocabulary tells the class; some tokens are masked."""
    random, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 192), ("test", 60)):
        labels = np.arange(count) % 3
        arrays[f"{part}_input_ids"] = random.integers(0, 10, (count, 6)) + 10 * labels[:, None]
        arrays[f"{part}_attention_mask"] = (random.random((count, 6)) < 0.9).astype(np.int32)
        arrays[f"{part}_labels"] = labels
    np.savez(tmp_path / "data.npz", **arrays)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "prunec.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    network = import_callable("model:network", tmp_path)()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return tmp_path


def test_from_tokens_to_a_bundle_and_back(project: Path, prunec: Prunec) -> None:
    outcome = prunec("compile", "model.pt", "--target", "cpu", "-o", "b")
    assert outcome.code == 0, outcome.err
    report = json.loads((project / "b/report.json").read_text())
    assert report["accuracy"]["recovered"] == report["accuracy"]["exported"] > 0.9
    assert report["model"]["inputs"] == [
        {"name": "input_ids", "shape": ["batch", "tokens"], "dtype": "int64"},
        {"name": "attention_mask", "shape": ["batch", "tokens"], "dtype": "int64"},
    ]
    assert report["model"]["outputs"] == ["logits", "hidden_states.0", "hidden_states.1", "pooled"]
    evaluated = [json.loads(prunec("eval", each, "--json").out)["value"] for each in ("b", "b/model.onnx")]
    assert evaluated == [report["accuracy"]["exported"]] * 2
    for command in (("verify", "b", "--source", "model.pt"), ("profile", "b"), ("profile", "b/model.onnx")):
        outcome = prunec(*command)
        assert outcome.code == 0, (command, outcome.out, outcome.err)


def test_one_output_is_deployed_and_the_default_metric_fits(project: Path, prunec: Prunec) -> None:
    text = CONFIG.replace("[data]", 'outputs = ["logits"]\n[data]')
    text = text.replace('loss = "model:loss"\nmetric = "model:metric"\n', "").replace("epochs = 3", "epochs = 1")
    (project / "prunec.toml").write_text(text)
    outcome = prunec("compile", "model.pt", "--target", "cpu", "-o", "b")
    assert outcome.code == 0, outcome.err
    report = json.loads((project / "b/report.json").read_text())
    assert report["model"]["outputs"] == ["logits"]
    assert report["accuracy"]["metric"] == "top1"
    assert report["accuracy"]["recovered"] == report["accuracy"]["exported"]


def test_inspect_and_profile_draw_what_is_described(project: Path, prunec: Prunec) -> None:
    outcome = prunec("inspect", "model.pt", "--json")
    assert outcome.code == 0, outcome.err
    inspection = json.loads(outcome.out)
    assert inspection["inputs"] == ["input_ids (batch, tokens) int64", "attention_mask (batch, tokens) int64"]
    assert inspection["outputs"] == ["logits", "hidden_states.0", "hidden_states.1", "pooled"]
    assert prunec("profile", "model.pt").code == 0


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"input_ids": np.zeros((6, 6), int)}, None),
        ({"input_ids": np.zeros((6, 2), int)}, "and the network takes [tokens] (tokens from 3 to 12)."),
        ({"input_ids": np.zeros((6, 6))}, "The data hold float64 for input_ids, and the network takes int64"),
        ({"attention_mask": np.zeros((6, 6), int)}, "The data give no input 'input_ids'"),
        ({"ids": np.zeros((6, 6), int)}, "The data give an input 'ids', which the network has not"),
        ({"images": np.zeros((6, 6), int)}, None),
        ({"input_ids": np.full((6, 6), 30)}, "The network can't take values of the data: index out of range in self."),
    ],
)
def test_data_of_other_inputs_are_refused(
    arrays: dict[str, np.ndarray], match: str | None, project: Path, prunec: Prunec
) -> None:
    parts = {f"{part}_{name}": array for part in ("train", "test") for name, array in arrays.items()}
    labels = {f"{part}_labels": np.arange(6) % 3 for part in ("train", "test")}
    np.savez(project / "data.npz", **parts, **labels)
    outcome = prunec("eval", "model.pt")
    assert outcome.code == (0 if match is None else 9), outcome.err
    assert match is None or match in outcome.err
