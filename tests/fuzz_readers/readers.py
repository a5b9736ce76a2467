"""The readers: for every kind of input what it begins with, how it is damaged, and what reads it. One line each."""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.calibration.quantization.sensitivity import LayerSensitivity
from prunec.compiler.bundle.bundle_names import MODEL_ONNX, PLAN
from prunec.compiler.bundle.bundle_reader import bundle_problems, read_bundle
from prunec.compiler.bundle.bundle_writer import BundleWriter
from prunec.compiler.cli.main import run
from prunec.compiler.facts.layer_choice import LayerSearch, MeasuredLoss, Trial
from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.project.checkpoint import load_checkpoint
from prunec.compiler.project.config import load_config
from prunec.compiler.project.example_inputs import make_examples
from prunec.compiler.project.hub_folder import read_hub_folder
from prunec.compiler.project.reading import read_safetensors
from prunec.compiler.project.recipe_request import RecipeOptions, resolve_recipe
from prunec.compiler.recovery.recover import Recover, StateOptions, recover
from prunec.compiler.stages.stored_choices import read_layers
from prunec.passes.frontend import capture
from prunec.passes.network_inputs import NetworkInput
from prunec.passes.own_layers import shrink
from prunec.passes.plan import PruningPlan, RemovedBranch
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.runtime.costs.cost_file import costs_json, read_costs
from prunec.runtime.engines.remote import open_onnx
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_inputs import random_onnx_inputs
from prunec.runtime.onnx_reading import read_onnx
from prunec.runtime.onnx_sparsity import check_sparsity
from prunec.runtime.target import Target
from tests.fuzz_readers.mutations import Mutate, of_bytes, of_json, of_protobuf, of_safetensors, of_text, of_zip, zipped
from tests.passes.costs.synthetic import engine, workload
from tests.passes.pt2_of_devices import of_device

ROOT = Path(__file__).parents[2]
Seeds = Callable[[], list[bytes]]


@dataclass(frozen=True)
class Reader:
    """One kind of input.

    Attributes:
        seeds: Whole inputs of it.
        mutate: Makes a damaged one of a whole one.
        read: Reads a file in the way that a command does; an exit code of 1 that it gives back is a fault too.
        file: Name of the file.
    """

    seeds: Seeds
    mutate: Mutate
    read: Callable[[Path], object]
    file: str


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )


@cache
def program() -> Program:
    torch.manual_seed(0)
    return capture(network().eval(), (torch.randn(2, 1, 8, 8),))


def _bytes(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()


def _saved(legacy: bool) -> bytes:
    torch.manual_seed(0)
    state = network().state_dict()
    return _bytes(lambda path: torch.save(state, path, _use_new_zipfile_serialization=not legacy))


def _wrapped() -> bytes:
    torch.manual_seed(0)
    content = {"state_dict": {f"module.{k}": v for k, v in network().state_dict().items()}, "epoch": 3}
    return _bytes(lambda path: torch.save(content, path))


def _load(path: Path) -> object:
    """All of a checkpoint's reading: without the shape of its inputs it ends before the network is captured."""
    return load_checkpoint(path, model=network)


def _nested() -> bytes:
    torch.manual_seed(0)
    state = network().state_dict()
    content = {"net": {"a": [state]}, "model_ema": {f"module.{k}": v + 1 for k, v in state.items()}, "loss": {"w": 1}}
    return _bytes(lambda path: torch.save(content, path))


_HUB_CONFIG = b"""{
 "architectures": ["TinyModel"], "model_type": "tiny", "dtype": "float32", "hidden_size": 8, "num_hidden_layers": 2,
 "depths": [2, 2], "id2label": {"0": "a", "1": "b"}, "text_config": {"num_hidden_layers": 2, "vocab_size": 99},
 "auto_map": {"AutoModel": "modeling.TinyModel"}, "attn_implementation": "sdpa"
}"""
_HUB_INDEX = b"""{
 "metadata": {"total_size": 100}, "weight_map": {"a.weight": "part-1.safetensors", "b.weight": "part-2.safetensors"}
}"""


def _read_hub(path: Path) -> object:
    """As a folder of Hugging Face is read, before any of it reaches transformers; the other files of it are whole."""
    whole = {"config.json": _HUB_CONFIG, "model.safetensors.index.json": _HUB_INDEX}
    whole |= {f"part-{number}.safetensors": save({"a.weight": torch.ones(2)}) for number in (1, 2)}
    for name, content in whole.items():
        if name != path.name:
            (path.parent / name).write_bytes(content)
    return [read_safetensors(file) for file in read_hub_folder(path.parent).weights]


def _load_pt2(path: Path) -> object:
    """As a bundle's is read, its hash aside: whoever damages the archive can write the manifest too."""
    return Program.load(path, trust=False)


def _npz() -> bytes:
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 30), ("test", 12)):
        arrays[f"{part}_images"] = random.integers(0, 255, (count, 8, 8), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count) % 3
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(20, dtype=np.int64).reshape(4, 5))
    return buffer.getvalue()


def _read_example(path: Path) -> object:
    """As the example file of an input is read: the network that takes it isn't run."""
    ids = NetworkInput("ids", (5,), "int64", low=0, high=20, example=str(path))
    return make_examples(_Tokens(), [ids])


class _Tokens(nn.Module):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return ids


def _named_npz() -> bytes:
    """Inputs by the names of a network's, in place of images."""
    random, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 30), ("test", 12)):
        arrays[f"{part}_ids"] = random.integers(0, 20, (count, 5))
        arrays[f"{part}_mask"] = random.integers(0, 2, (count, 5)).astype(bool)
        arrays[f"{part}_labels"] = np.arange(count) % 3
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@cache
def _structured() -> Program:
    """A program with a described input and outputs in a structure, so that its files tell of both."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

        def forward(self, ids: torch.Tensor) -> dict[str, object]:
            hidden = self.table(ids).mean(1)
            return {"logits": self.head(hidden), "all": (hidden, 8), "none": None}

    torch.manual_seed(0)
    made = capture(Net().eval(), (torch.randint(0, 20, (2, 5)),))
    made.describe_inputs((NetworkInput("ids", (5,), "int64", low=0, high=20),))
    return made


def _pt2() -> list[bytes]:
    plain = _bytes(program().save)
    return [plain, _bytes(_structured().save), of_device(plain, "cuda")]


@cache
def _structured_onnx() -> bytes:
    return _bytes(lambda path: export_onnx(_structured(), path))


def _read_data(path: Path) -> Data:
    return load_data(DataConfig(train=f"npz:{path.name}", test=f"npz:{path.name}"), path.parent, 0)


_TOML_INPUTS = b"""[model]
factory = "net:build"
dims = {tokens = "4:16:64"}
inputs = [
    {name = "ids", shape = ["tokens"], dtype = "int64", low = 0, high = 30522},
    {name = "mask", shape = ["tokens"], dtype = "bool", optional = true},
    {name = "image", shape = [3, 32, 32], low = -1.0, high = 1.0, example = "image.npy"},
    {name = "scale", shape = [1], batch = false},
]
outputs = ["logits", "hidden.0"]
"""
_TOML = b"""[model]
name = "ResNet-50"
factory = "net:build"
input = [3, 224, 224]
pretraining = {epochs = 90, schedule = "step:0=0.1,30=0.01,60=0.001", optimizer = "sgd"}
[data]
train = "npz:d.npz"
test = "imagefolder:images"
mean = [0.5, 0.5, 0.5]
std = [0.2, 0.2, 0.2]
augment = ["resized-crop{scale=[0.08,1]}", "flip"]
validation_fraction = 0.2
limit_train = 1000
resize = 256
crop = 224
[recipe]
seed = 3
[recipe.prune-filters]
speedup = 2.0
criterion = "l1"
ignore = ["head*"]
[recipe.sparsify]
[recipe.recover]
epochs = 30
schedule = "cosine:0.02"
batch_size = 64
betas = [0.9, 0.99]
optimizer = "adamw"
"""
_TOML_2 = (
    b'[recipe]\npipeline = "prune-filters{ratio=0.5} sparsify recover{epochs=2}"\n[model]\ninput = [[3, 8, 8], [5]]\n'
)


def _read_config(path: Path) -> object:
    config = load_config(path)
    if config.data is not None:
        config.data.sources()
    if config.model.pretraining is not None:
        config.model.pretraining.learning_rates().pieces(config.model.pretraining.epochs)
    return resolve_recipe(config, RecipeOptions(), Target.parse("a100-2:4"))


_PIPELINES = [
    b'prune-filters{speedup=2.0,criterion=l1} sparsify recover{epochs=30,schedule="step:0=1e-2,10=1e-3"}',
    b'repeat{n=3}(prune-filters{ratio=0.2,ignore=["head*",a]} repeat{n=2}(recover{epochs=1})) export build measure',
    b'fold-parameters prune-filters{ratio={"layer*"=0.5,"head"=0}} permute{seconds=3} sparsify re-estimate-batchnorm',
    b'recover{epochs=150,optimizer=adamw,betas=[0.9,0.99],hooks="",distill=2,schedule="P30F90,1e-2+60"}',
]
_SCHEDULES = [
    *(b"step:0=1e-2,30=1e-3", b"cosine:0.02,1e-4", b"constant:1e-3", b"halving:1e-2", b"P30F90,1e-2+60"),
    *(b"P30/12.06F90,1e-1", b"rest(15):step:0=0.1,30=0.01", b"ft:1e-3", b"lrw", b"slr:0.1,0.001,0.5,0.75", b"clr:0.1"),
    *(b"rest(1.5):rest(2):cosine:0.1", b"P2.49F90,1e-1", b"wr", b"P15F105,1e-1"),
]


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace").replace("\0", " ")


def _read_pipeline(path: Path) -> object:
    pipeline = parse_pipeline(_text(path))
    assert parse_pipeline(str(pipeline)) == pipeline
    return pipeline


def _read_schedule(path: Path) -> object:
    text = _text(path)
    dense = () if len(text) % 3 else ("--original", "step:0=0.1,30=0.01", "--original-epochs", "90")
    return run(["schedule", "--epochs", str((40, 90, 10_000)[len(text) % 3]), *dense, "--json", "--", text])


def _read_target(path: Path) -> object:
    target = Target.parse(_text(path))
    return Target.parse(str(target)).info, target.channel_multiple


@cache
def _plan() -> bytes:
    plan = PruneFilters(ratio=0.25, round_to=1, min_channels=2).run(program()).plan
    assert plan is not None
    return plan.to_json().encode()


@cache
def _costs() -> bytes:
    flow, counts = workload(program())
    return costs_json(replace(engine(flow.at(counts), 0), error={"layers": 0.02, "network": 0.01})).encode()


def _layer_choices() -> list[bytes]:
    rows = tuple(LayerSensitivity(name, 0.5, 100.0) for name in "ab")
    trials = tuple(Trial(kept, MeasuredLoss(1.5, margin)) for kept in ((), ("a",)) for margin in (0.5, None))
    searches = [LayerSearch(source, 64, 100, rows, trials, ("a",)) for source in (None, "measured")]
    return [json.dumps(asdict(search)).encode() for search in searches]


def _read_costs(path: Path) -> object:
    flow, counts = workload(program())
    return read_costs(path).network_ms(flow.at(counts))


def _plan_of_branches() -> bytes:
    branch = RemovedBranch("3", ("3.weight", "3.bias"), ("3.weight",))
    return replace(PruningPlan.from_json(_plan().decode()), removed_branches=(branch,)).to_json().encode()


def _read_plan(path: Path) -> object:
    return shrink(network(), PruningPlan.read(path))


def _reports() -> list[bytes]:
    history = ROOT / "tests/history/09-ledger"
    return [path.read_bytes() for path in (history / "controls.json", history / "options.json", history / "rtx.json")]


def _compare(path: Path) -> object:
    reference = ROOT / "tests/history/09-ledger/controls.json"
    return run(["compare", str(path), str(reference), "--json"])


_CARDS = [
    b"""common: &c
  data: ImageNet
  metric: top1
  architecture: ResNet-50
  base: torchvision
  dense_accuracy: 0.7613
  setup: "Wang et al. 2023, appendix A"
  pretraining: {epochs: 90, schedule: "step:0=0.1,30=0.01,60=0.001"}
  training: {optimizer: sgd, momentum: 0.9, weight_decay: 1.0e-4, batch_size: 256}
runs:
- {name: a, speedup: 2.31, accuracy: {mean: 0.75, standard_deviation: 0.001, runs: 3}}
- name: b
  speedup: 2.3
  finetuning: {epochs: 90, learning_rates: [[0, 0.1], [30, 0.01]]}
  accuracy: {mean: 0.74, by_seed: {0: 0.74, 1: 0.74}}
  rounds: [0, 3.5]
""",
    b'name: a\ndata: CIFAR-10\nfinetuning: {epochs: 3, schedule: "cosine:0.1"}\nstructure: "2:4"\nzero_fraction: 0.5\n',
]


def _state() -> list[bytes]:
    def write(path: Path) -> None:
        recover(program(), _RECOVER, _data(), state=StateOptions(path))

    return [_bytes(write)]


_RECOVER = Recover(epochs=2, schedule="constant:0.01", batch_size=8, ema=0.9, probe=0)


@cache
def _data() -> Data:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "d.npz").write_bytes(_npz())
        return _read_data(Path(folder) / "d.npz")


def _resume(path: Path) -> object:
    """Goes on with a training: one that isn't refused is trained to its end."""
    return recover(program(), _RECOVER, _data(), state=StateOptions(path, resume=True))


@cache
def _onnx() -> bytes:
    return _bytes(lambda path: export_onnx(program(), path))


def _run_onnx(path: Path) -> object:
    check_sparsity(path)
    with open_onnx(path) as session:
        return session(*random_onnx_inputs(read_onnx(path), str(path), 1, 0))


@cache
def _bundle() -> bytes:
    """The files of a bundle in a zip archive."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "x.bundle"
        with BundleWriter(folder, seed=0) as inside:
            stored = ROOT / "tests/history/09-ledger/cpu"
            (inside / "report.json").write_bytes((stored / "report.json").read_bytes())
            (inside / PLAN).write_bytes(_plan())
            (inside / MODEL_ONNX).write_bytes(_onnx())
            (inside / "model.pt2").write_bytes(b"not read here")
        return zipped([(path.name, path.read_bytes()) for path in sorted(folder.iterdir())])


def _read_bundle(path: Path) -> object:
    folder = path.with_suffix(".bundle")
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                (folder / Path(name).name).write_bytes(archive.read(name))
    except Exception:  # noqa: BLE001 - the archive only carries the files here
        (folder / "manifest.json").write_bytes(path.read_bytes())
    bundle_problems(read_bundle(folder))
    return _compare(folder)


_PT = of_zip({})
_BUNDLE = of_zip({".json": of_json}, keep=(MODEL_ONNX, ".pt2"))

#: A further kind of input is a further line.
READERS: dict[str, Reader] = {
    "checkpoint": Reader(lambda: [_saved(legacy=False), _wrapped(), _nested()], _PT, _load, "model.pt"),
    "checkpoint-legacy": Reader(lambda: [_saved(legacy=True)], of_bytes, _load, "model.pth"),
    "safetensors": Reader(lambda: [save(network().state_dict())], of_safetensors, _load, "model.safetensors"),
    "hub-config": Reader(lambda: [_HUB_CONFIG], of_json, _read_hub, "config.json"),
    "hub-index": Reader(lambda: [_HUB_INDEX], of_json, _read_hub, "model.safetensors.index.json"),
    "pt2": Reader(_pt2, of_zip({".json": of_json}), _load_pt2, "model.pt2"),
    "npz": Reader(lambda: [_npz(), _named_npz()], of_zip({}), _read_data, "data.npz"),
    "npy": Reader(lambda: [_npy()], of_bytes, _read_example, "example.npy"),
    "toml": Reader(lambda: [_TOML, _TOML_2, _TOML_INPUTS], of_text, _read_config, "prunec.toml"),
    "pipeline": Reader(lambda: _PIPELINES, of_text, _read_pipeline, "pipeline.txt"),
    "schedule": Reader(lambda: _SCHEDULES, of_text, _read_schedule, "schedule.txt"),
    "target": Reader(lambda: [b"a100-2:4-fp16", b"cpu", b"t4-dense-int8"], of_text, _read_target, "target.txt"),
    "plan": Reader(lambda: [_plan(), _plan_of_branches()], of_json, _read_plan, "plan.json"),
    "layers": Reader(_layer_choices, of_json, read_layers, "layers-0.json"),
    "costs": Reader(lambda: [_costs()], of_json, _read_costs, "costs.json"),
    "report": Reader(_reports, of_json, _compare, "report.json"),
    "cards": Reader(lambda: _CARDS, of_text, _compare, "cards.yaml"),
    "bundle": Reader(lambda: [_bundle()], _BUNDLE, _read_bundle, "bundle.zip"),
    "state": Reader(_state, of_zip({}), _resume, "recover-0.state"),
    "onnx": Reader(lambda: [_onnx(), _structured_onnx()], of_protobuf, _run_onnx, "model.onnx"),
}
