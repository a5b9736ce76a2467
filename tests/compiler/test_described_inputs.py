"""[model] inputs, dims and outputs of prunec.toml: what they say, and how a checkpoint is captured by them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunec.compiler.project.checkpoint import load_checkpoint
from prunec.compiler.project.config import load_config
from prunec.compiler.project.example_inputs import make_examples
from prunec.passes.errors import InputError, PrunecError, UsageError
from prunec.passes.network_inputs import NetworkInput, VaryingSize
from prunec.passes.program import Program

TEXT = """[model]
dims = {tokens = "4:16:64"}
inputs = [
    {name = "input_ids", shape = ["tokens"], dtype = "int64", high = 50},
    {name = "attention_mask", shape = ["tokens"], dtype = "bool", optional = true},
    {name = "scale", shape = [1], low = 1, high = 2, batch = false},
]
outputs = ["logits"]
"""


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(50, 8), nn.LayerNorm(8)
        self.head, self.extra = nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(
        self,
        input_ids: Tensor,
        position: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        scale: Tensor | None = None,
    ) -> dict[str, Tensor]:
        hidden = self.norm(self.table(input_ids)) * (1 if scale is None else scale)
        if attention_mask is not None:
            hidden = hidden * attention_mask[..., None]
        return {"logits": self.head(hidden.mean(1)), "extra": self.extra(hidden)}


def model_of(tmp_path: Path, text: str) -> Any:
    (tmp_path / "prunec.toml").write_text(text)
    return load_config(tmp_path / "prunec.toml").model


def test_a_file_describes_inputs(tmp_path: Path) -> None:
    tokens = VaryingSize("tokens", 16, 4, 64)
    assert model_of(tmp_path, TEXT).described(tmp_path) == (
        NetworkInput("input_ids", (tokens,), "int64", 0, 50),
        NetworkInput("attention_mask", (tokens,), "bool", optional=True),
        NetworkInput("scale", (1,), low=1, high=2, has_batch=False),
    )


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('inputs = [{name = "x", shape = [3], dtype = "int64"}]', "neither a high nor an example file"),
        ('inputs = [{name = "x", shape = [3], dtype = "int63", high = 3}]', "the type 'int63' is unknown"),
        ('inputs = [{name = "x", shape = [0]}]', "sizes must be at least 1"),
        ('inputs = [{name = "x", shape = [1048576, 1048576]}]', "one sample would have"),
        ('inputs = [{name = "x", shape = ["time"]}]', "'time' of x has no range"),
        ('inputs = [{name = "x", shape = [3]}, {name = "x", shape = [3]}]', "two inputs have the name 'x'"),
        ('inputs = [{name = "x", shape = [3], high = 3}]', "low and high of x belong together"),
        ('inputs = [{name = "x", shape = [3], dtype = "int8", high = 500}]', "whole numbers that int8 holds"),
        ('inputs = [{name = "x", shape = [3], kind = 4}]', "key 'kind' is unknown"),
        ("inputs = [{shape = [3]}]", "needs a value for 'name'"),
        ("inputs = []", "inputs names none"),
        ('inputs = [{name = "x", shape = [3]}]\ninput = [3]', "input and inputs exclude each other"),
        ('inputs = [{name = "x", shape = [3]}]\ndims = {time = "1:2:3"}', "no input has the dimension 'time'"),
        (
            'inputs = [{name = "x", shape = ["t"]}]\ndims = {t = "3:2:1"}',
            "3:2:1 is no range of sizes; expected smallest",
        ),
        ('inputs = [{name = "x", shape = ["batch"]}]\ndims = {batch = "1:2:3"}', "can't be the name of a dimension"),
        ('inputs = [{name = "x", shape = ["t"]}]\ndims = {t = "1:2:99999999999"}', "out of order, or above"),
        ('dims = {time = "1:2:3"}', "dims are of the dimensions that inputs names"),
    ],
)
def test_what_can_be_no_input_is_told(line: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=match):
        model_of(tmp_path, f"[model]\n{line}\n")


def loaded(tmp_path: Path, text: str = TEXT, network: type[nn.Module] = Text) -> Program:
    torch.manual_seed(0)
    torch.save(network().state_dict(), tmp_path / "model.pt")
    model = model_of(tmp_path, text)
    described = model.described(tmp_path)
    return load_checkpoint(tmp_path / "model.pt", model=network, inputs=described, outputs=model.outputs).program


def test_a_checkpoint_is_captured_by_them(tmp_path: Path) -> None:
    program = loaded(tmp_path)
    assert [each.words() for each in program.inputs] == [
        "input_ids (batch, tokens) int64",
        "attention_mask (batch, tokens) bool",
        "scale (1) float32",
    ]
    assert [len(program.example_args), list(program.example_kwargs)] == [1, ["attention_mask", "scale"]]
    assert program.output_names == ("logits",)
    assert "extra.weight" in program.dropped
    ids, mask, scale = program.example_inputs
    assert (ids.shape, mask.dtype, scale.shape) == ((2, 16), torch.bool, (1,))
    assert 0 <= int(ids.min()) <= int(ids.max()) < 50
    for samples, tokens in ((3, 16), (1, 4), (5, 64)):
        longer = torch.ones(samples, tokens, dtype=torch.int64)
        assert program(longer, attention_mask=longer.bool(), scale=scale)["logits"].shape == (samples, 3)
    program.save(tmp_path / "m.pt2")
    again = Program.load(tmp_path / "m.pt2")
    assert again.inputs == program.inputs
    assert [sorted(dims) for dims in again.dynamic_shapes or ()] == [[0, 1], [0, 1], []]


def test_an_example_file_is_taken_and_decides_the_sizes(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.arange(30).reshape(3, 10))
    text = TEXT.replace("high = 50", 'example = "ids.npy"')
    program = loaded(tmp_path, text)
    assert program.example_inputs[0].tolist() == np.arange(20).reshape(2, 10).tolist()
    assert program.example_inputs[1].shape == (2, 10)
    assert program.inputs[0] == NetworkInput("input_ids", (VaryingSize("tokens", 10, 4, 64),), "int64")


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (None, "doesn't exist"),
        (np.zeros((3, 2), np.int64), r"holds an array \[3, 2\], expected input_ids \(batch, tokens\) int64"),
        (np.zeros((0, 10), np.int64), "holds an array"),
        (np.zeros((3, 10)), "holds float64, expected int64"),
        (np.zeros((3, 10), object), "can't be read as a NumPy .npy file"),
    ],
)
def test_another_example_file_is_refused(array: Any, match: str, tmp_path: Path) -> None:
    if array is not None:
        np.save(tmp_path / "ids.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=match):
        loaded(tmp_path, TEXT.replace("high = 50", 'example = "ids.npy"'))


def test_a_header_is_not_believed(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.zeros((3, 10), np.int64))
    content = (tmp_path / "ids.npy").read_bytes()
    (tmp_path / "ids.npy").write_bytes(content.replace(b"(3, 10)", b"(3, 9" + b"9" * 9 + b")")[: len(content)])
    with pytest.raises(InputError, match=r"can't be read as a NumPy \.npy file"):
        loaded(tmp_path, TEXT.replace("high = 50", 'example = "ids.npy"'))


class Keywords(nn.Module):
    def forward(self, a: Tensor, b: Tensor | None = None, *, c: Tensor | None = None) -> Tensor:
        return a


class Wrapped(nn.Module):
    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return kwargs["b"]


class Several(nn.Module):
    def forward(self, *args: Tensor) -> Tensor:
        return args[0]


@pytest.mark.parametrize(
    ("network", "names", "args", "kwargs"),
    [
        (Keywords, "ab", 2, []),
        (Keywords, "ba", 2, []),
        (Keywords, "ac", 1, ["c"]),
        (Keywords, "cb", 0, ["b", "c"]),
        (Wrapped, "ba", 0, ["b", "a"]),
        (Several, "xy", 2, []),
    ],
)
def test_inputs_are_passed_as_forward_takes_them(
    network: type[nn.Module], names: str, args: int, kwargs: list[str]
) -> None:
    made = make_examples(network(), [NetworkInput(name, (2,)) for name in names])
    assert (len(made.args), list(made.kwargs)) == (args, kwargs)
    assert [each.name for each in made.inputs][args:] == kwargs


def test_an_input_that_the_network_has_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Text takes no input 'inputs_ids'") as caught:
        loaded(tmp_path, TEXT.replace('"input_ids"', '"inputs_ids"'))
    assert caught.value.hint == "Did you mean 'input_ids'?"
    with pytest.raises(UsageError, match="no output 'logit'"):
        loaded(tmp_path, TEXT.replace('"logits"', '"logit"'))


def test_an_archive_is_described_too(tmp_path: Path) -> None:
    program = loaded(tmp_path)
    program.save(tmp_path / "m.pt2")
    ids, mask, scale = program.inputs
    narrow = [NetworkInput("scale", (1,), has_batch=False), mask, NetworkInput("input_ids", ids.shape, "int64", 3, 4)]
    again = load_checkpoint(tmp_path / "m.pt2", inputs=narrow, trust=True).program
    assert [each.name for each in again.inputs] == ["input_ids", "attention_mask", "scale"]
    assert (again.inputs[0].low, again.inputs[0].high) == (3, 4)
    with pytest.raises(PrunecError, match="describes other inputs than the network has"):
        load_checkpoint(tmp_path / "m.pt2", inputs=[mask, mask, scale], trust=True)
    other = replace(mask, shape=(VaryingSize("frames", 16, 4, 64),))
    with pytest.raises(UsageError, match="tokens and frames are one dimension of the network"):
        load_checkpoint(tmp_path / "m.pt2", inputs=[ids, other, scale], trust=True)
