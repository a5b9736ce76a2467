"""The hook "ssl": the subgradient of a group lasso for each structure, what it makes zero, and what may then go."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, unfold

from prunec.calibration.data import Data
from prunec.compiler.recovery.regimes.lasso import Lasso, WeightColumns
from prunec.compiler.recovery.regimes.ssl import Ssl
from prunec.passes.errors import UsageError
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from tests.recovery.regimes.toys import IMAGE, OPTIONS, PRUNING, cut, plain, prepare, redrawn, residual, stays
from tests.recovery.toy_hooks import Film, Toy

DEPTH = PruneFilters(speedup=1.5, depth=True, criterion="l2", seed=0)
#: A part of a parameter: its name and what indexes it.
Part = tuple[str, Any]


def groups(structure: str) -> Iterator[list[Part]]:
    """The groups of the plain network, written out; of the residual one for depth."""
    if structure == "depth":
        for block in ("3", "4"):
            layers = (f"{block}.{name}" for name in ("first", "second", "norm1", "norm2"))
            yield [(f"{layer}.weight", ...) for layer in layers] + [(f"{block}.norm{n}.bias", ...) for n in (1, 2)]
    elif structure == "shape":
        for name, channels in (("0.weight", 1), ("3.weight", 8)):
            for place in range(9 * channels):
                yield [(name, (slice(None), place // 9, place // 3 % 3, place % 3))]
    for unit in range(8):
        if structure == "filter":
            yield [("0.weight", unit), ("1.weight", unit), ("1.bias", unit)]
            yield [("3.weight", unit), ("3.bias", unit), ("4.weight", unit), ("4.bias", unit)]
        elif structure == "channel":
            yield [("3.weight", (slice(None), unit))]
            yield [("7.weight", (slice(None), slice(16 * unit, 16 * unit + 16)))]


def example(structure: str) -> tuple[Program, PruneFilters | None]:
    if structure == "depth":
        return redrawn(residual()), DEPTH
    return redrawn(plain()), None if structure == "shape" else PRUNING


@pytest.mark.parametrize("structure", ["filter", "channel", "shape", "depth"])
def test_the_subgradient_of_each_group_is_its_weights_over_their_norm(data: Data, structure: Any) -> None:
    program, pruning = example(structure)
    tensors = program.parameters()
    with torch.no_grad():
        for name, place in next(groups(structure)):
            tensors[name][place] = 0.0
    hooks = (Film(), Ssl(structure, penalty=0.5), Film())
    prepare(program, data, *hooks, options=replace(OPTIONS, epochs=1), pruning=pruning)
    before, after = (film.gradients[0] for film in Toy.started)
    expected = {name: gradient.clone() for name, gradient in before.items()}
    for group in groups(structure):
        norm = torch.cat([tensors[name][place].flatten() for name, place in group]).norm()
        for name, place in group if norm else ():
            expected[name][place] += 0.5 * tensors[name][place] / norm
    for name, gradient in expected.items():
        torch.testing.assert_close(after[name], gradient.detach(), rtol=1e-5, atol=1e-5)
    assert any(not torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("structure", ["filter", "channel", "shape"])
def test_the_report_counts_the_groups_that_the_penalty_alone_made_zero(data: Data, structure: Any) -> None:
    program, pruning = example(structure)
    decaying = replace(OPTIONS, schedule="cosine:0.05", epochs=4)
    hook = Ssl(structure, penalty=0.1, near_zero=0.02)
    result = prepare(program, data, hook, options=decaying, pruning=pruning)
    tensors, small, count = result.program.tensors(), 0, 0
    for group in groups(structure):
        weights = torch.cat([tensors[name][place].flatten() for name, place in group])
        small += bool(weights.square().mean().sqrt() < 0.02)
        count += 1
    figures = result.hooks[0].figures
    assert (figures["groups"], figures["near_zero_by_the_penalty_alone"]) == (count, small)
    assert 0 < small < count
    weak = prepare(program, data, replace(hook, penalty=1e-6), options=decaying, pruning=pruning).hooks[0].figures
    assert weak["near_zero_by_the_penalty_alone"] < small


@pytest.mark.parametrize("structure", ["filter", "channel"])
def test_the_last_threshold_is_set_to_the_budget(data: Data, structure: Any) -> None:
    pruning = replace(PRUNING, allocation="global")
    result = prepare(redrawn(plain()), data, Ssl(structure), pruning=pruning)
    pruned, units = cut(result, pruning), result.hooks[0].decided["units"]
    taken = [
        float(score)
        for group, scores in units.items()  # type: ignore[attr-defined]
        for unit, score in enumerate(scores)
        if unit not in stays(pruned, f"{group}.weight")
    ]
    assert result.hooks[0].figures["threshold_set_by_the_budget"] == pytest.approx(max(taken))


def test_a_convolution_with_columns_of_zeros_is_a_product_without_them() -> None:
    random = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=random, dtype=torch.float64) for shape in ((2, 3, 9, 9), (5, 3, 3, 3)))
    parameter = nn.Parameter(weight)
    sizes = Lasso("conv", (WeightColumns(parameter),)).norms()
    kept = sizes >= sizes.median()
    assert 0 < int(kept.sum()) < 27
    with torch.no_grad():
        parameter.flatten(1)[:, ~kept] = 0.0
    compact: Tensor = parameter.flatten(1)[:, kept] @ unfold(x, 3)[:, kept]
    torch.testing.assert_close(conv2d(x, parameter).flatten(2), compact, rtol=0, atol=1e-12)


def test_a_shrunk_branch_is_what_depth_removes(data: Data) -> None:
    options = replace(OPTIONS, schedule="cosine:0.05", epochs=6)
    result = prepare(residual(), data, Ssl("depth", penalty=0.3), options=options, pruning=DEPTH)
    assert result.hooks[0].figures["groups"] == 2
    pruned = DEPTH.run(result.program)
    assert pruned.plan is not None
    (gone, *_) = [branch.name for branch in pruned.plan.removed_branches]
    tensors = result.program.tensors()
    norms = {block: float(tensors[f"{block}.norm2.weight"].detach().norm()) for block in ("3", "4")}
    assert gone == f"{min(norms, key=lambda block: norms[block])}.second"


@pytest.mark.parametrize(
    ("structure", "pruning", "words"),
    [
        ("depth", PRUNING, "nothing behind it removes any"),
        ("depth", DEPTH, "the network has none that can be removed"),
        ("filter", None, "none stands behind it"),
        ("filter", DEPTH, "prune-filters has depth"),
    ],
)
def test_what_it_can_t_do_is_refused(structure: Any, pruning: PruneFilters | None, words: str, data: Data) -> None:
    with pytest.raises(UsageError, match=words):
        prepare(plain(), data, Ssl(structure), pruning=pruning)


def test_shapes_are_those_of_convolutions(data: Data) -> None:
    linear = capture(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4)), IMAGE)
    with pytest.raises(UsageError, match="the network has none"):
        prepare(linear, data, Ssl("shape"))


@pytest.mark.parametrize("options", [{"structure": "row"}, {"penalty": 0.0}, {"near_zero": float("inf")}])
def test_options_that_can_t_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Ssl(**options)
