"""ResRep: its merge is exact, its gradients are the paper's, and masked rows end at zero with the budget kept."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from prunec.calibration.data import Data
from prunec.compiler.recovery.regimes.compactor_sites import compactor_sites
from prunec.compiler.recovery.regimes.resrep import ResRep
from prunec.passes.coupling import analyse
from prunec.passes.errors import UsageError
from prunec.passes.frontend import capture
from prunec.passes.tensors import with_values
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import cifar_resnet
from tests.methods.toy import toy
from tests.recovery.regimes.networks import Concatenated, Gated, Unscaled
from tests.recovery.regimes.regime_runs import GLOBAL, LAST, ONE_STEP, difference, net, pruned, small, trained, watched
from tests.recovery.regimes.toys import IMAGE

POOLED = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
NETWORKS: dict[str, nn.Module] = {
    "norm": nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), *POOLED, nn.Linear(6, 4)),
    "norm and bias": nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), *POOLED, nn.Linear(6, 4)),
    "bias": nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4)),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.GELU(), nn.Linear(10, 4)),
    "transposed": nn.Sequential(nn.ConvTranspose2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), *POOLED, nn.Linear(6, 4)),
    "depthwise": nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU6(), nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.ReLU6(),
        *POOLED, nn.Linear(6, 4),
    ),
    "grouped": nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), *POOLED,
        nn.Linear(8, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_merge_is_exact(name: str) -> None:
    program = capture(redraw_(NETWORKS[name].eval(), 0), (torch.randn(2, 3, 8, 8),)).double()
    groups = analyse(program).groups
    sites = compactor_sites(program, groups, "resrep")
    assert len(sites) == (1 if name == "grouped" else len(groups))
    form, tensors = program.with_tensors(program.tensors()), program.tensors()
    generator = torch.Generator().manual_seed(1)
    values: dict[str, Any] = {}
    for number, site in enumerate(sites):
        noise = torch.randn(site.width, site.width, generator=generator, dtype=torch.float64)
        matrix = nn.Parameter(torch.eye(site.width, dtype=torch.float64) + 0.3 * noise)
        assert torch.equal(site.rows(site.units(matrix)), matrix)
        site.insert(form, f"compactor_{number}", matrix)
        values |= site.merged(tensors, matrix)
    merged = program.with_tensors(with_values(tensors, values))
    assert difference(merged, form) < 1e-12
    assert difference(merged, program) > 1e-2


def test_a_merge_of_the_identity_trains_as_the_network_did() -> None:
    """A norm reads other values then, and does to them in training what it does in inference."""
    program = capture(redraw_(NETWORKS["norm and bias"].eval(), 0), (torch.randn(2, 3, 8, 8),))
    (site,) = compactor_sites(program, analyse(program).groups, "resrep")
    merged = program.with_tensors(with_values(program.tensors(), site.merged(program.tensors(), torch.eye(6))))
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    forms = [each.with_tensors({n: t.clone() for n, t in each.tensors().items()}).train() for each in (program, merged)]
    outputs = [form(x) for form in forms]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-3, atol=1e-4)


def test_gradients_are_the_masked_loss_s_and_the_lasso_s(data: Data) -> None:
    """Of one step without momentum from the identity, whose rows have norm 1."""
    after = {}
    for lasso in (1e-4, 2e-4):
        _, hook = watched(net(), data, ResRep(lasso=lasso, momentum=0.0), GLOBAL, ONE_STEP)
        after[lasso] = [matrix.detach().double() for matrix in hook.matrices]
        masked = hook.masked
        for matrix, mask in zip(after[lasso], masked, strict=True):
            expected = (1 - 4503.6 * lasso) * torch.eye(len(mask), dtype=torch.float64)[mask]
            torch.testing.assert_close(matrix[mask], expected, rtol=1e-5, atol=1e-7)
        assert sum(int(mask.sum()) for mask in masked) > 0
    for weak, strong, mask in zip(after[1e-4], after[2e-4], masked, strict=True):
        identity = torch.eye(len(mask), dtype=torch.float64)
        torch.testing.assert_close((weak - strong)[~mask], 0.1 * 1e-4 * identity[~mask], rtol=0.02, atol=1e-7)
        assert not torch.allclose(weak[~mask], identity[~mask], atol=1e-4), "the loss has a gradient there"


@pytest.mark.parametrize("epochs", [1, 4])
def test_masked_rows_end_at_zero_and_keep_the_budget(data: Data, epochs: int) -> None:
    program = net()
    result, _ = watched(program, data, ResRep(), GLOBAL, replace(LAST, epochs=epochs))
    figures: Any = result.hooks[0].figures
    assert figures["largest_norm_of_masked"] == 0.0
    assert 0 < figures["masked"] < figures["units"] == 28
    reached = figures["macs_without_masked"]
    uniform = replace(GLOBAL, allocation="uniform", criterion="l1").run(program).stats["macs"]
    assert 0.8 * uniform < reached <= uniform < figures["macs_dense"]
    behind = pruned(result, GLOBAL)
    assert behind.stats["macs"] <= uniform
    units: Any = result.hooks[0].decided["units"]
    gone = [row["width"] - row["kept"] for row in behind.stats["groups"]]
    assert [int((units[row["name"]] <= 0).sum()) for row in behind.stats["groups"]] == gone
    assert difference(behind.program, result.program) < 1e-9, "nothing is lost with what is zero"


def test_more_and_more_rows_are_masked_after_the_beginning(data: Data) -> None:
    result, hook = watched(net(), data, ResRep(begin=0.5, growth=0.5), GLOBAL, replace(LAST, epochs=1))
    assert result.hooks
    steps = hook.training.steps_per_epoch
    seen = []
    for done in range(1, steps + 1):
        hook._mask(done)
        seen.append(sum(int(masked.sum()) for masked in hook.masked))
    assert seen[: steps // 2] == [0] * (steps // 2)
    assert seen == sorted(seen)
    assert 0 < seen[steps // 2 + 1] < seen[-1]


def test_units_of_several_layers_stay(data: Data) -> None:
    program = toy()
    groups = analyse(program).groups
    assert [group.residual for group in groups].count(True) == 1
    result = trained(program, data, ResRep(), GLOBAL)
    rows = pruned(result, GLOBAL).stats["groups"]
    assert {row["name"]: row["kept"] < row["width"] for row in rows} == {g.name: not g.residual for g in groups}
    figures: Any = result.hooks[0].figures
    assert (figures["units"], figures["units_without_compactor"]) == (36, 12)


def test_what_it_can_t_do_is_refused(data: Data) -> None:
    residual = capture(cifar_resnet(8), (torch.randn(2, 3, 16, 16),))
    groups = analyse(residual).groups
    assert len(compactor_sites(residual, groups, "resrep")) == 3
    with pytest.raises(UsageError, match=r"no group has a place for it: .* has filters of [0-9]+ layers"):
        compactor_sites(residual, [group for group in groups if group.residual], "resrep")
    with pytest.raises(UsageError, match="can prune 2 of 3 groups, and these alone can't keep the goal"):
        trained(toy(), data, ResRep(), replace(GLOBAL, ratio=None, speedup=20.0))
    with pytest.raises(UsageError, match="readies filters for prune-filters, and none stands behind it"):
        trained(small(), data, ResRep(), None)
    with pytest.raises(UsageError, match=r"ranks the filters of all layers together, and .* allocation=auto"):
        trained(small(), data, ResRep(), replace(GLOBAL, allocation="auto"))
    with pytest.raises(UsageError, match="readies the weights of the last step"):
        trained(small(), data, ResRep(), GLOBAL, replace(LAST, keep="best"))
    with pytest.raises(UsageError, match="momentum and begin must be at least 0 and below 1"):
        ResRep(momentum=1.0)
    with pytest.raises(UsageError, match="shares of one training"):
        ResRep(begin=0.8, growth=0.5)


@pytest.mark.parametrize(
    ("network", "names"), [(Concatenated, ["third"]), (Unscaled, ["second", "third"]), (Gated, ["gated", "squeeze"])]
)
def test_filters_to_which_something_adds_behind_their_layer_have_no_compactor(network: Any, names: list[str]) -> None:
    program = capture(network().eval(), IMAGE)
    assert [site.group.name for site in compactor_sites(program, analyse(program).groups, "resrep")] == names
