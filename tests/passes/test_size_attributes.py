"""Sizes within the attributes of a module."""

from collections import namedtuple
from typing import Any

import pytest
from torch import nn

from prunec.passes.size_attributes import replaced, size_attributes

Pair = namedtuple("Pair", ["heads", "width"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (64, [32, 48]),
        ((3, 64), [(3, 32)]),
        ([[64], {"width": 64, 64: 1}], [[[32], {"width": 32, 64: 1}]]),
        (Pair(4, 64), [Pair(4, 32)]),
        ((1, 2), []),
        (True, []),
        ("64", []),
        ({}, []),
    ],
)
def test_sizes_are_replaced_wherever_they_stand(value: Any, expected: list[Any]) -> None:
    found = replaced(value, {(64, 32): None, (64, 48): None})
    assert found == expected and [type(each) for each in found] == [type(each) for each in expected]


def test_a_value_that_holds_itself_ends() -> None:
    ring: list[Any] = [64]
    ring.append(ring)
    [found] = replaced(ring, {(64, 32): None})
    assert found[0] == 32 and found[1] is ring and ring[0] == 64


def test_what_every_module_has_is_no_size() -> None:
    module = nn.Linear(4, 8)
    module.sizes, module.name = {"out": 8}, "linear"  # type: ignore[assignment]
    found = size_attributes(module)
    assert found["sizes"] == {"out": 8} and (found["in_features"], found["out_features"]) == (4, 8)
    assert not {"_parameters", "_modules", "_forward_hooks", "name", "training"} & found.keys()
