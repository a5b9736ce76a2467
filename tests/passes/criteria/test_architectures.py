"""Criteria of units on a MobileNetV2 and a small vision transformer, with 64 random labelled samples."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from prunec.calibration import collect_evidence
from prunec.passes import Program, PruneFilters, capture, check_oracle
from prunec.passes.criteria import Evidence
from prunec.passes.errors import UsageError
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.vit import ViT
from tests.passes.criteria.test_own_criteria import NEEDS, OF_BATCH_NORMS

pytestmark = pytest.mark.long
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "MobileNetV2": lambda: mobilenet_v2(10), "ViT": lambda: ViT(32, patch=8, width=32, depth=2, heads=2, classes=10),
}  # fmt: skip
REFUSED = [("ViT", text) for text in OF_BATCH_NORMS]


@pytest.fixture(scope="module", params=NETWORKS)
def measured(request: pytest.FixtureRequest) -> tuple[str, Program, Evidence]:
    """A network's name, its program, and the evidence for all criteria, of one collection."""
    torch.manual_seed(0)
    program = capture(NETWORKS[request.param]().eval(), (torch.randn(2, 3, 32, 32),))
    batches = [(torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))) for _ in range(2)]
    return request.param, program, collect_evidence(program, NEEDS, batches, cross_entropy)


@pytest.mark.parametrize("text", NEEDS)
def test_half_of_the_units_go_exactly(measured: tuple[str, Program, Evidence], text: str) -> None:
    name, program, evidence = measured
    options = PruneFilters(ratio=0.5, criterion=text)
    if (name, text) in REFUSED:
        with pytest.raises(UsageError, match=f"The criterion {text} looks at batch norms, and the filters of .* have"):
            options.run(program, evidence)
        return
    result = options.run(program, evidence)
    assert program.macs() / result.program.macs() > 3
    assert check_oracle(program, result, program.example_args).passed
