"""Samples that code reads each time are held to what they were when they were first read."""

import re

import pytest
import torch
from torch import Tensor

from prunec.calibration.samples import FirstReading, InputKind
from prunec.passes.feeding import BatchInputs

INTEGERS = frozenset({torch.int64})
PLAIN = FirstReading((InputKind((3, 4), torch.float32),), (), INTEGERS, (0, 9))
MAPS = FirstReading((InputKind((3, 4), torch.uint8),), (4,), INTEGERS, (0, 255))
MIXED = FirstReading((InputKind((3, 4), torch.float32),), (), INTEGERS | {torch.float32}, (0, 9))
NAMED = FirstReading(
    (InputKind((5,), torch.int64, "ids"), InputKind((2,), torch.float32, "size")), (), INTEGERS, (0, 9)
)
IDS, SIZE = torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 2)


@pytest.mark.parametrize(
    ("seen", "inputs", "labels", "words"),
    [
        (PLAIN, torch.ones(2, 3, 4), torch.tensor([0, 9]), ""),
        (PLAIN, torch.ones(2, 3, 4), torch.tensor([0, 10]), "have the label 10; .* labels 0 to 9"),
        (PLAIN, torch.ones(2, 3, 4), torch.tensor([-100, 1]), "have the label -100"),
        (PLAIN, torch.ones(2, 3, 4), torch.tensor([1.0, 1.0]), "labels of shape \\(\\) and type torch.float32"),
        (PLAIN, torch.ones(2, 3, 4), torch.tensor([1j, 1j]), "type torch.complex64"),
        (PLAIN, torch.ones(2, 3, 4), torch.tensor([[1], [2]]), "labels of shape \\(1,\\)"),
        (PLAIN, torch.ones(2, 3, 5), torch.tensor([0, 9]), "shape \\(3, 5\\)"),
        (PLAIN, torch.ones(2, 3, 4).double(), torch.tensor([0, 9]), "type torch.float64"),
        (PLAIN, torch.ones(2, 3, 4) / 0, torch.tensor([0, 9]), "not finite"),
        (MAPS, torch.ones(2, 3, 4).byte(), torch.tensor([[0, 1, 2, 255]] * 2), ""),
        (MAPS, torch.ones(2, 3, 4).byte(), torch.tensor([[0, 1, 2, 256]] * 2), "have the label 256"),
        (NAMED, {"ids": IDS, "size": SIZE}, torch.tensor([0, 9]), ""),
        (NAMED, {"ids": IDS, "size": SIZE}, torch.tensor([0, 10]), "have the label 10"),
        (NAMED, {"ids": IDS, "size": SIZE / 0}, torch.tensor([0, 9]), "not finite; .* size of shape \\(2,\\)"),
        (NAMED, {"ids": IDS}, torch.tensor([0, 9]), "have nothing; .* had size of shape"),
        (NAMED, (IDS, SIZE), torch.tensor([0, 9]), "have shape \\(5,\\) .* had ids of shape"),
        (MIXED, torch.ones(2, 3, 4), torch.tensor([1.0, 2.0]), ""),
        (MIXED, torch.ones(2, 3, 4), torch.tensor([1.0, 2.5]), "have the label 2.5"),
        (MIXED, torch.ones(2, 3, 4), torch.tensor([1.0, float("nan")]), "have the label nan"),
        (MIXED, torch.ones(2, 3, 4), torch.tensor([1j, 1j]), "have labels of .*complex64"),
    ],
)
def test_what_is_otherwise_than_before_is_told(
    seen: FirstReading, inputs: BatchInputs, labels: Tensor, words: str
) -> None:
    found = seen.difference(inputs, labels)
    assert bool(found) == bool(words)
    assert re.search(words, found), found
