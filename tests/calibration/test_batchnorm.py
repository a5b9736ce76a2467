"""Batch norm statistics measured anew, against torch's own cumulative average."""

import pytest
import torch
from torch import Tensor, nn

from prunec.calibration.batchnorm import ReestimateBatchNorm
from prunec.calibration.statistics import reestimate_batchnorm
from prunec.passes import PruneFilters, capture
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.program import Program


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16, affine=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 4),
    )  # fmt: skip


def images(count: int = 64) -> Tensor:
    return 2 + 3 * torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def captured() -> Program:
    return capture(network().eval(), (torch.randn(2, 3, 8, 8),))


def test_statistics_are_torchs_over_one_large_batch() -> None:
    program, x = captured(), images()
    before = {name: tensor.clone() for name, tensor in program.tensors().items()}
    result = reestimate_batchnorm(program, x)
    assert result.stats == {"batch_norms": 3}
    module = network().train()
    for part in module:
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.reset_running_stats()
            part.momentum = None
        part.eval() if isinstance(part, nn.Dropout) else None
    with torch.no_grad():
        module(x)
    expected = module.state_dict()
    found = result.program.tensors()
    names = [name for name in expected if name.endswith(("running_mean", "running_var"))]
    assert len(names) == 6
    for name in names:
        # In training torch normalises by the biased variance, inference by the unbiased one.
        torch.testing.assert_close(found[name], expected[name], rtol=0.05, atol=0.02)
    torch.testing.assert_close(found["1.running_mean"], expected["1.running_mean"])
    torch.testing.assert_close(found["1.running_var"], expected["1.running_var"])
    assert all(torch.equal(before[name], tensor) for name, tensor in program.tensors().items())


def test_statistics_of_a_pruned_network_are_those_of_its_own_maps() -> None:
    program, x = captured(), images(256)
    pruned = PruneFilters(ratio=0.5).run(program).program
    result = reestimate_batchnorm(pruned, x).program
    with torch.no_grad():
        seen = torch.nn.functional.conv2d(x, result.tensors()["0.weight"], padding=1)
    mean, var = result.tensors()["1.running_mean"], result.tensors()["1.running_var"]
    torch.testing.assert_close(seen.mean((0, 2, 3)), mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen.var((0, 2, 3)), var, rtol=1e-4, atol=1e-4)


def test_the_form_of_the_program_stays() -> None:
    program = captured().train()
    assert reestimate_batchnorm(program, images()).program.training
    assert not reestimate_batchnorm(program.eval(), images()).program.training


def test_what_can_not_be_done() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        ReestimateBatchNorm(samples=1)
    with pytest.raises(UsageError, match="at least 2"):
        reestimate_batchnorm(captured(), images(1))
    plain = capture(nn.Linear(4, 4), (torch.randn(2, 4),))
    with pytest.raises(UsageError, match="no batch norm"):
        reestimate_batchnorm(plain, torch.randn(8, 4))
    with pytest.raises(NumericMismatchError, match="not finite"):
        reestimate_batchnorm(captured(), torch.full((4, 3, 8, 8), torch.inf))
