"""Criteria of units and of weights on a MobileNetV2 and a small vision transformer, with 64 random labelled samples."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from prunec.calibration import collect_evidence
from prunec.compiler.methods.catalogue import METHODS
from prunec.passes import Program, PruneFilters, Sparsify, capture, check_oracle
from prunec.passes.criteria import Evidence
from prunec.passes.errors import UsageError
from tests.architectures.small import SMALL
from tests.passes.criteria.test_own_criteria import NEEDS, OF_BATCH_NORMS

pytestmark = pytest.mark.long
UNITS = (*NEEDS, "l1", "l2", "hrank", "provable", "provable{variant=sampled}", "provable{variant=hybrid}", "ccp")
WEIGHTS = tuple(dict.fromkeys(method.criterion for method in METHODS.values() if method.structure == "weights"))
REFUSED = {
    **{("ViT", text): f"{text} looks at batch norms, and the filters of .* have" for text in OF_BATCH_NORMS},
    ("ViT", "hrank"): "hrank is not defined for the group .* none of its layers gives feature maps",
}


Measured = tuple[str, Program, list[tuple[torch.Tensor, torch.Tensor]]]


@pytest.fixture(scope="module", params=SMALL)
def measured(request: pytest.FixtureRequest) -> Measured:
    """A network's name, its program, and labelled samples."""
    torch.manual_seed(0)
    program = capture(SMALL[request.param]().eval(), (torch.randn(2, 3, 32, 32),))
    batches = [(torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))) for _ in range(2)]
    return request.param, program, batches


@pytest.fixture(scope="module")
def together(measured: Measured) -> Evidence:
    """The evidence for the criteria that none is refused of, of one collection."""
    name, program, batches = measured
    return collect_evidence(program, [text for text in UNITS if (name, text) not in REFUSED], batches, cross_entropy)


@pytest.mark.parametrize("text", UNITS)
def test_half_of_the_units_go_exactly(measured: Measured, together: Evidence, text: str) -> None:
    name, program, batches = measured
    options = PruneFilters(ratio=0.5, criterion=text)
    if words := REFUSED.get((name, text)):
        with pytest.raises(UsageError, match=words):
            options.run(program, collect_evidence(program, [text], batches, cross_entropy))
        return
    result = options.run(program, together)
    assert program.macs() / result.program.macs() > 3
    assert check_oracle(program, result, program.example_args).passed


@pytest.mark.parametrize("text", WEIGHTS)
def test_half_of_the_weights_are_masked(measured: Measured, text: str) -> None:
    _, program, batches = measured
    evidence = collect_evidence(program, [text], batches, cross_entropy)
    masked = Sparsify(pattern="elements", ratio=0.5, criterion=text).run(program, evidence).program
    for name, mask in masked.masks.items():
        assert mask.float().mean() == pytest.approx(0.5, abs=0.5 / min(mask.shape[0], mask[0].numel())), name
        assert not masked.tensors()[name][~mask].any()
    assert len(masked.masks) >= 8
