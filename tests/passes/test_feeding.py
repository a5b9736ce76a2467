"""The description of a network's inputs, and feeding a network by it."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunec.passes import capture
from prunec.passes.errors import InputError
from prunec.passes.feeding import bound, chunked, drawn, feed, full_shape, joined, part_of, sample_count
from prunec.passes.network_inputs import MAX_SIZE, NetworkInput, VaryingSize
from prunec.passes.program import Program


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(30, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
        hidden = self.table(input_ids)
        if attention_mask is not None:
            hidden = hidden * attention_mask[..., None]
        return self.head(hidden.sum(1)) * (1.0 if scale is None else scale)


IDS, MASK = torch.arange(12).reshape(2, 6), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])


@pytest.fixture
def program() -> Program:
    return capture(Text().eval(), (IDS,), {"attention_mask": MASK})


def described(program: Program, **changes: Any) -> None:
    ids, mask = program.inputs
    program.describe_inputs((ids, NetworkInput(mask.name, mask.shape, mask.dtype, **changes)))


def test_inputs_have_the_names_of_the_arguments(program: Program) -> None:
    assert [each.words() for each in program.inputs] == [
        "input_ids (batch, 6) int64",
        "attention_mask (batch, 6) int64",
    ]


def test_a_tensor_a_tuple_and_a_dict_are_fed_alike(program: Program) -> None:
    expected = Text().eval()(IDS, MASK)
    for inputs in (
        (IDS, MASK),
        {"attention_mask": MASK, "input_ids": IDS},
        {"input_ids": IDS.int(), "attention_mask": MASK.bool()},
    ):
        torch.testing.assert_close(feed(program, inputs), expected)
    one = capture(Text().eval(), (), {"input_ids": IDS})
    for inputs in (IDS, (IDS,), {"input_ids": IDS}):
        assert torch.equal(feed(one, inputs), Text().eval()(IDS))


def test_ones_stand_for_an_optional_input(program: Program) -> None:
    described(program, optional=True)
    expected = Text().eval()(IDS)
    for inputs in (IDS, (IDS,), {"input_ids": IDS}):
        torch.testing.assert_close(feed(program, inputs), expected)


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        (IDS, "give 1 input, and the network takes 2: input_ids, attention_mask"),
        ((IDS, IDS, IDS), "give 3 inputs"),
        ({"input_ids": IDS}, "no input 'attention_mask', only input_ids"),
        ({"input_ids": IDS, "attention_mask": MASK, "labels": IDS}, "an input 'labels', which the network has not"),
    ],
)
def test_other_inputs_are_refused(program: Program, inputs: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        bound(program, inputs)


@pytest.mark.parametrize("ids", [IDS + 25, IDS - 25])
def test_ids_of_another_vocabulary_are_a_mistake_of_the_data(ids: Tensor) -> None:
    program = capture(Text().eval(), (IDS,))
    for inputs, name in ((ids, "0"), ({"input_ids": ids}, "'input_ids'")):
        with pytest.raises(InputError, match=rf"out of range.*input {name} {ids.min()} to {ids.max()}\."):
            feed(program, inputs)
    with pytest.raises(RuntimeError, match="shapes"):  # a mistake of no value
        feed(capture(nn.Linear(2, 2), (torch.zeros(2, 2),)), torch.zeros(2, 3))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.sampled_from(["tensor", "tuple", "dict"]))
def test_parts_of_a_batch_make_it_up_again(samples: int, parts: int, form: str) -> None:
    x = torch.arange(samples * 2).reshape(samples, 2)
    inputs: Any = {"tensor": x, "tuple": (x, x + 1), "dict": {"a": x, "b": -x}}[form]
    pieces = chunked(inputs, parts)
    assert sum(map(sample_count, pieces)) == samples
    assert [sample_count(piece) for piece in pieces] == [len(piece) for piece in x.chunk(parts)]
    again = joined(pieces)
    whole = part_of(inputs, slice(None))
    assert torch.equal(joined([again]) if form == "tensor" else again["a" if form == "dict" else 0], x)
    assert type(whole) is type(inputs)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["int64", "int32", "uint8", "bool", "float32", "float16"]), st.integers(0, 100), st.integers(1, 100)
)
def test_values_lie_in_their_range(dtype: str, low: int, width: int) -> None:
    high = low + width
    if dtype == "bool":
        low, high = 0, 2
    each = NetworkInput("x", (4, 5), dtype, low, high)
    values = drawn(each, full_shape(each, 3, {}), torch.Generator().manual_seed(0))
    assert values.shape == (3, 4, 5)
    assert values.dtype == getattr(torch, dtype)
    assert values.min() >= low
    assert values.max() < high or (dtype == "float16" and values.max() <= high)


def test_a_description_survives_its_json() -> None:
    sequence = VaryingSize("sequence", example=16, smallest=4, largest=512)
    for each in (
        NetworkInput("ids", (sequence,), "int64", 0, 2**63),
        NetworkInput("image", (3, VaryingSize("height", 32), 8), low=-1.5, high=2.0, optional=True),
        NetworkInput("scale", (), "float64", has_batch=False),
    ):
        assert NetworkInput.from_json(each.to_json()) == each
    assert sequence.sizes is not None
    assert str(sequence.sizes) == "4:16:512"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"name": ""}, "can't be the name of an input"),
        ({"name": "a\nb"}, "can't be the name of an input"),
        ({"dtype": "complex64"}, "complex64.* is unknown"),
        ({"shape": (MAX_SIZE + 1,)}, "at most"),
        ({"shape": (2**20, 2**20)}, "one sample would have"),
        ({"low": 3}, "belong together"),
        ({"low": 3, "high": 3}, "must be below"),
        ({"low": 0.0, "high": float("inf")}, "must be below"),
        ({"low": 0.0, "high": 1e39}, "range of float32"),
        ({"low": 0, "high": 10**400}, "range of float32"),
        ({"low": float("nan"), "high": 1.0}, "must be below"),
        ({"dtype": "int8", "low": 0, "high": 300}, "whole numbers that int8 holds"),
        ({"dtype": "int64", "low": 0, "high": 2.5}, "whole numbers that int64 holds"),
    ],
)
def test_what_can_be_no_input_is_refused(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        NetworkInput(**{"name": "x", "shape": (3,), **fields})


@pytest.mark.parametrize("name", ["batch", "a b", "", "1x"])
def test_what_can_be_no_dimension_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="can't be the name of a dimension"):
        VaryingSize(name, 4)
