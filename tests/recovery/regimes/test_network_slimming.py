"""The hook "network-slimming": the subgradient of the scales' L1 norm, and one threshold over all of them."""

from dataclasses import replace

import pytest
import torch

from prunec.calibration.data import Data
from prunec.compiler.recovery.regimes.network_slimming import NetworkSlimming
from prunec.passes.errors import UsageError
from prunec.passes.frontend import capture
from tests.recovery.networks import network
from tests.recovery.regimes.toys import IMAGE, OPTIONS, PRUNING, cut, plain, prepare, redrawn, residual, stays
from tests.recovery.toy_hooks import Film, Toy

GLOBAL = replace(PRUNING, allocation="global")
SCALES = {"0": "1.weight", "3": "4.weight"}


def test_the_subgradient_of_the_scales_is_added_to_their_gradients(data: Data) -> None:
    program = redrawn(plain())
    with torch.no_grad():
        program.parameters()["1.weight"][2] = 0.0
    prepare(program, data, Film(), NetworkSlimming(penalty=0.5), Film(), options=replace(OPTIONS, epochs=1))
    before, after = (film.gradients[0] for film in Toy.started)
    for name, gradient in before.items():
        added = 0.5 * program.parameters()[name].sign() if name in SCALES.values() else torch.zeros_like(gradient)
        torch.testing.assert_close(after[name], gradient + added, rtol=0, atol=1e-6)


def test_one_threshold_over_all_scales_is_set_to_the_budget(data: Data) -> None:
    result = prepare(redrawn(plain()), data, NetworkSlimming(penalty=0.01), pruning=GLOBAL)
    pruned, tensors = cut(result, GLOBAL), result.program.tensors()
    kept, taken = [], []
    for group, name in SCALES.items():
        scales, remain = tensors[name].abs().tolist(), stays(pruned, f"{group}.weight")
        kept += [scales[unit] for unit in remain]
        taken += [scale for unit, scale in enumerate(scales) if unit not in remain]
    assert taken
    assert max(taken) < min(kept)
    assert result.hooks[0].figures["threshold_set_by_the_budget"] == pytest.approx(max(taken))
    uniform = cut(result, PRUNING).program
    assert pruned.program.macs() <= uniform.macs() < result.program.macs()


def test_the_penalty_alone_makes_scales_small(data: Data) -> None:
    weak, strong = (
        prepare(plain(), data, NetworkSlimming(penalty, near_zero=0.3), pruning=GLOBAL).hooks[0].figures
        for penalty in (1e-4, 0.05)
    )
    assert weak["near_zero_by_the_penalty_alone"] == 0
    assert strong["near_zero_by_the_penalty_alone"] > 4
    assert weak["units"] == strong["units"] == 16


def test_a_unit_of_several_scales_counts_their_mean(data: Data) -> None:
    result = prepare(redrawn(residual()), data, NetworkSlimming(), options=replace(OPTIONS, epochs=1))
    tensors, units = result.program.tensors(), result.hooks[0].decided["units"]
    shared = torch.stack([tensors[name].abs() for name in ("1.weight", "3.norm2.weight", "4.norm2.weight")]).mean(0)
    torch.testing.assert_close(units["0"].float(), shared)  # type: ignore[index]
    torch.testing.assert_close(units["3.first"].float(), tensors["3.norm1.weight"].abs())  # type: ignore[index]


def test_filters_without_a_batch_norm_are_refused(data: Data) -> None:
    with pytest.raises(UsageError, match="the groups 3 have none"):
        prepare(capture(network(), IMAGE), data, NetworkSlimming())
    ignoring = replace(PRUNING, ignore=("3",))
    assert prepare(capture(network(), IMAGE), data, NetworkSlimming(), pruning=ignoring).hooks[0].figures["units"] == 8
