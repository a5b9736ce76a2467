"""The structure of outputs: kept by programs and files, whatever class a network gives; and those that are deployed."""

import dataclasses
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunec.passes import PruneFilters, capture, check_oracle
from prunec.passes.errors import InputError, UnsupportedModelError, UsageError
from prunec.passes.network_inputs import NetworkInput
from prunec.passes.output_selection import captured_alike, select_outputs
from prunec.passes.outputs import OutputForm, Record, only_tensor
from prunec.passes.program import Program


class Pair(NamedTuple):
    logits: Tensor
    hidden: Tensor


@dataclasses.dataclass
class Plain:
    logits: Tensor
    hidden: Tensor | None = None
    stride: int = 8


@dataclasses.dataclass
class ModelOutput(OrderedDict[str, Any]):
    """Fields that are keys and attributes, as Hugging Face's and diffusers' outputs have them."""

    logits: Tensor | None = None
    hidden: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) is not None:
                self[field.name] = value

    def __getitem__(self, key: Any) -> Any:
        return tuple(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


class Registered(dict[str, Any]):
    """A class that its authors registered, with its names as the context."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


pytree.register_pytree_node(
    Registered, lambda r: (list(r.values()), list(r)), lambda values, names: Registered(zip(names, values, strict=True))
)


class Net(nn.Module):
    def __init__(self, pack: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pack = pack
        self.body, self.head, self.other = nn.Linear(6, 16), nn.Linear(16, 4), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        hidden = self.body(x).relu()
        return self.pack(self.head(hidden), self.other(hidden), x)


PACKS: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "tensor": lambda a, b, x: a,
    "tuple": lambda a, b, x: (a, (b, x)),
    "list": lambda a, b, x: [a, b],
    "same twice": lambda a, b, x: (a, a),
    "dict": lambda a, b, x: {"logits": a, "feature.maps": {"0": b}},
    "ordered": lambda a, b, x: OrderedDict(out=a, aux=b),
    "named tuple": lambda a, b, x: Pair(a, b),
    "dataclass": lambda a, b, x: Plain(a, b),
    "dataclass with None": lambda a, b, x: Plain(a),
    "model output": lambda a, b, x: ModelOutput(logits=a, hidden=(b, x)),
    "registered": lambda a, b, x: Registered(logits=a, hidden=b),
    "constants": lambda a, b, x: {"logits": a, "stride": 8, "name": "net", "none": None, "all": (b, True, 0.5)},
    "a number": lambda a, b, x: (a, x.shape[0]),
}
CLASSES = {"named tuple": Pair, "dataclass": Plain, "model output": ModelOutput, "registered": Registered}
X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


def captured(kind: str) -> Program:
    return capture(Net(PACKS[kind]), (X[:2],))


def leaves(outputs: object) -> list[Any]:
    return [leaf.tolist() if isinstance(leaf, Tensor) else leaf for leaf in pytree.tree_leaves(outputs)]


@pytest.mark.parametrize("kind", PACKS)
def test_a_file_gives_the_same_structure_with_names_for_classes(kind: str, tmp_path: Path) -> None:
    program, eager = captured(kind), Net(PACKS[kind])(X)
    assert type(program(X)) is type(eager)
    program.save(tmp_path / "m.pt2")
    outputs = Program.load(tmp_path / "m.pt2")(X)
    present = [leaf for leaf in leaves(outputs) if leaf is not None]
    assert present == [leaf for leaf in leaves(eager) if leaf is not None]
    if kind in ("dataclass", "model output", "registered"):
        assert isinstance(outputs, Record)
        assert outputs.logits is outputs["logits"] is outputs[0]
        assert outputs.get("missing") is None
        with pytest.raises(AttributeError, match="no output 'missing', but logits, hidden"):
            _ = outputs.missing
    elif kind == "named tuple":
        assert outputs._fields == Pair._fields
        assert type(outputs) is not Pair
        assert torch.equal(outputs.logits, outputs[0])
    elif kind == "dataclass with None":
        assert (outputs.hidden, outputs.stride) == (None, 8)
    elif kind == "ordered":
        assert type(outputs) is dict  # which keeps the order, too
    else:
        assert pytree.tree_structure(outputs) == pytree.tree_structure(eager)


@pytest.mark.parametrize("kind", PACKS)
def test_a_form_survives_its_json(kind: str) -> None:
    form = OutputForm.of(captured(kind).graph)
    again = OutputForm.from_json(json.loads(json.dumps(form.to_json())))
    assert again.to_json() == form.to_json()
    assert again.computed_paths == form.computed_paths
    assert again.build(list(range(9))[: len(form.computed_paths)]) is not None


def test_names_are_paths_and_positions() -> None:
    names = {kind: OutputForm.of(captured(kind).graph).names() for kind in PACKS if kind not in ("registered", "list")}
    assert names == {
        "tensor": ("output",),
        "tuple": ("output_0", "output_1", "output_2"),
        "same twice": ("output_0", "output_1"),
        "dict": ("logits", "feature.maps.0"),
        "ordered": ("out", "aux"),
        "named tuple": ("logits", "hidden"),
        "dataclass": ("logits", "hidden"),
        "dataclass with None": ("logits",),
        "model output": ("logits", "hidden.0", "hidden.1"),
        "constants": ("logits", "all.0"),
        "a number": ("output_0", "output_1"),
    }
    assert OutputForm.of(captured("ordered").graph).names(["out"]) == ("out_", "aux")


@pytest.mark.parametrize("kind", ["tuple", "dict", "named tuple", "model output", "registered", "constants"])
def test_pruning_keeps_the_structure(kind: str) -> None:
    program = captured(kind)
    result = PruneFilters(ratio=0.5).run(program)
    assert check_oracle(program, result, (X[:2],)).passed
    assert pytree.tree_structure(result.program(X)) == pytree.tree_structure(program(X))


@pytest.mark.parametrize(("kind", "path"), [("dict", "logits"), ("model output", "logits"), ("named tuple", "logits")])
def test_what_nothing_deployed_needs_is_left_out(kind: str, path: str) -> None:
    program = captured(kind)
    selected = select_outputs(program, [path])
    assert selected.output_names == ("logits",)
    outputs, expected = selected(X), program(X)
    assert torch.equal(pytree.tree_leaves(outputs)[0], pytree.tree_leaves(expected)[0])
    assert type(outputs) is type(expected)
    assert set(program.tensors()) - set(selected.tensors()) == {"other.weight", "other.bias"}
    assert {"other.weight", "other.bias"} <= set(selected.dropped)
    assert only_tensor(selected(X)) is not None
    assert program.output_names != selected.output_names  # the program itself is left as it was
    result = PruneFilters(ratio=0.5).run(selected)
    assert check_oracle(selected, result, (X[:2],)).passed


def test_an_output_that_froze_channels_frees_them(tmp_path: Path) -> None:
    program = capture(Net(lambda a, b, x: {"logits": a, "hidden": b}), (X[:2],))
    deep = capture(_Hidden(), (X[:2],))
    with pytest.raises(UnsupportedModelError, match="No filters of this network can be pruned"):
        PruneFilters(ratio=0.5).run(deep)
    selected = select_outputs(deep, ["logits"])
    assert PruneFilters(ratio=0.5).run(selected).program.macs() < selected.macs()
    selected.save(tmp_path / "m.pt2")
    loaded = Program.load(tmp_path / "m.pt2")
    assert loaded(X)["hidden"] is None
    assert torch.equal(loaded(X)["logits"], deep(X)["logits"])
    with pytest.raises(UsageError, match="no output 'logit'") as caught:
        select_outputs(program, ["logit"])
    assert caught.value.hint == "Did you mean 'logits'?"
    with pytest.raises(UsageError, match="no output 'logits'"):
        select_outputs(captured("tensor"), ["logits"])


def test_another_network_is_captured_alike() -> None:
    selected = select_outputs(captured("model output"), ["hidden.0", "logits"])
    selected.describe_inputs((NetworkInput("x", (6,), low=0.0, high=1.0),))
    again = captured_alike(Net(PACKS["model output"]), selected)
    assert again.output_names == selected.output_names == ("logits", "hidden.0")
    assert again.inputs == selected.inputs
    assert leaves(again(X)) == leaves(selected(X))


class _Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.a(x)
        return {"logits": self.b(hidden.relu()), "hidden": hidden}


def test_a_class_that_nothing_is_known_of_is_told() -> None:
    class Cache:
        def __init__(self, keys: Tensor) -> None:
            self.keys = keys

    class Cached(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return {"logits": super().forward(x), "past_key_values": Cache(x)}

    with pytest.raises(UnsupportedModelError, match=r"there is a .*Cache in its outputs.*\n.*use_cache = False"):
        capture(Cached(2, 2), (torch.zeros(2, 2),))


def test_what_can_be_no_output_is_told() -> None:
    with pytest.raises(UnsupportedModelError, match="computes no output"):
        capture(Net(lambda a, b, x: {"stride": 8}), (X[:2],)).export()


BAD: list[Any] = [
    {"fields": [["a", "tensor"], ["a", "tensor"]], "named_tuple": ""},
    {"fields": [["__import__('os')", "tensor"]], "named_tuple": "Pair"},
    {"fields": [["logits", "tensor"]], "named_tuple": "class"},
    {"fields": [["logits", "tensor"]], "named_tuple": "os.system"},
    {"deque": ["tensor"]},
    {"constant": {"a": 1}},
    {"tuple": ["tensor", "tensor"]},
    {"dict": [[["x"], "tensor"]]},
    [],
    3,
]


@pytest.mark.parametrize("document", BAD)
def test_a_hostile_form_is_refused(document: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = captured("dict") if document != BAD[6] else captured("tensor")
    monkeypatch.setattr(OutputForm, "to_json", lambda self: document)
    program.save(tmp_path / "m.pt2")
    monkeypatch.undo()
    with pytest.raises(InputError, match="can't be read"):
        Program.load(tmp_path / "m.pt2")


def test_a_field_can_be_no_method() -> None:
    record = Record(items=1, __class__=2)
    assert callable(record.items)
    assert type(record) is Record
    assert record["items"] == 1
