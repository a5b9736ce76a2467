"""Residual branches: which can go, that removing them is what zeroing their values is, in plans, modules and files."""

import copy
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunec.passes.applying import BranchesStayWarning, NotCheckedWarning, apply_plan
from prunec.passes.base import PassResult
from prunec.passes.branch_removal import removal, remove_branches
from prunec.passes.branches import find_branches
from prunec.passes.costs.counting import work_of
from prunec.passes.costs.workload import COUNTS, Work
from prunec.passes.coupling import analyse
from prunec.passes.errors import InputError, UnsupportedModelError
from prunec.passes.oracle import TOLERANCE, check_oracle, relative_error
from prunec.passes.plan import PruningPlan, RemovedBranch
from prunec.passes.program import Program
from prunec.passes.rewrite import apply_plan_to_program
from prunec.passes.verify import verify_pass
from prunec.runtime.numerics import onnx_vs_torch
from prunec.runtime.onnx_export import export_onnx
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.resnet import BasicBlock, Bottleneck, imagenet_resnet
from tests.architectures.vit import ViT
from tests.fuzz.checking import random_program
from tests.passes.checks import Net, assert_shapes_known, captured, images, normal, random_prune

ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "basic": (lambda: imagenet_resnet(BasicBlock, (2, 1, 1, 1)), 32, 8),
    "bottleneck": (lambda: imagenet_resnet(Bottleneck, (2, 1, 1, 1)), 32, 9),
    "vit": (lambda: ViT(16, 8, 24, 2, 3, 10), 16, 4),
    "mobilenet_v2": (mobilenet_v2, 32, 10),
}


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, a norm over channels, two linear layers, a layer scale (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm, self.first, self.second = (
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.Linear(2 * width, width),
        )
        self.scale, self.drop = nn.Parameter(torch.ones(width)), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.second(nn.functional.gelu(self.first(y))) * self.scale
        return x + self.drop(y.permute(0, 3, 1, 2))  # type: ignore[no-any-return]


def convnext() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 2, 2), ConvNeXtBlock(8), ConvNeXtBlock(8), nn.Conv2d(8, 3, 1))


def names_of(program: Program) -> list[str]:
    return [branch.name for branch in find_branches(program)]


def without(program: Program, names: list[str]) -> PassResult:
    """The result of a pass that removes branches."""
    result, removed = removal(program, names)
    return PassResult(result, True, plan=PruningPlan({}, removed_branches=removed))


def check_removed(program: Program, result: PassResult) -> None:
    """The oracle, and what further steps rely on."""
    assert check_oracle(program, result, images(program)).passed
    assert result.plan is not None
    verify_pass(program, result, "a step")
    left = result.program
    assert left.tensors().keys() == program.tensors().keys() - result.plan.gone.keys()
    read = {str(node.target) for node in left.graph.find_nodes(op="get_attr")}
    assert read == left.tensors().keys()
    assert_shapes_known(left)
    analyse(left)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "convnext"])
def test_removed_equals_zeroed(name: str) -> None:
    build, size, count = ARCHITECTURES.get(name, (convnext, 16, 2))
    program = captured(build(), normal(2, 3, size, size))
    branches = find_branches(program)
    assert len(branches) == count
    for branch in Random(0).sample(branches, 1):
        result = without(program, [branch.name])
        check_removed(program, result)
        assert result.program.macs() < program.macs()
        assert [layer.name for layer in result.program.layers()] == [
            layer.name for layer in program.layers() if layer.name not in branch.layers
        ]
    sums = {branch.joined: branch.name for branch in branches}
    everything = without(program, list(sums.values()))
    check_removed(program, everything)
    assert not set(sums) & {node.name for node in everything.program.graph.nodes}


@pytest.mark.parametrize("name", ["basic", "vit", "convnext"])
def test_with_widths(name: str) -> None:
    build, size, _ = ARCHITECTURES.get(name, (convnext, 16, 2))
    network = build()
    program = captured(network, normal(2, 3, size, size))
    for seed in range(2):
        widths = random_prune(program, seed, least=2)
        assert widths.plan is not None
        one_of_each_sum = {branch.joined: branch.name for branch in find_branches(program)}
        names = Random(seed).sample(list(one_of_each_sum.values()), 2)
        pruned, removed = removal(widths.program, names)
        plan = PruningPlan(widths.plan.kept, removed_branches=removed)
        result = PassResult(pruned, True, plan=PruningPlan.from_json(plan.to_json()))
        assert result.plan == plan
        check_removed_and_cut(program, result)


def check_removed_and_cut(program: Program, result: PassResult) -> None:
    assert result.plan is not None
    assert check_oracle(program, result, images(program)).passed
    replayed = apply_plan_to_program(program, result.plan)
    assert relative_error(replayed(*images(program)), result.program(*images(program))) == 0
    assert replayed.module.code == result.program.module.code


def test_against_the_network_whose_own_layers_are_zero() -> None:
    """An oracle that knows nothing of graphs."""
    resnet = imagenet_resnet(BasicBlock, (2, 1, 1, 1))
    program = captured(resnet, normal(2, 3, 32, 32))
    with torch.no_grad():
        for tensor in (resnet.layer1[1].bn2.weight, resnet.layer1[1].bn2.bias):
            tensor.zero_()
        expected = resnet(normal(3, 3, 32, 32))
        result = remove_branches(program, ["layer1.1.conv2"])
        assert relative_error(result(normal(3, 3, 32, 32)), expected) < TOLERANCE
    vit = ViT(16, 8, 24, 2, 3, 10)
    program = captured(vit, normal(2, 3, 16, 16))
    with torch.no_grad():
        for layer in (vit.blocks[0].projection, vit.blocks[1].mlp[2]):
            layer.weight.zero_()
            layer.bias.zero_()
        expected = vit(normal(3, 3, 16, 16))
        result = remove_branches(program, ["blocks.0.projection", "blocks.1.mlp.2"])
        assert relative_error(result(normal(3, 3, 16, 16)), expected) < TOLERANCE


def test_a_wrong_removal_is_caught() -> None:
    program = captured(imagenet_resnet(BasicBlock, (2, 1, 1, 1)), normal(2, 3, 32, 32))
    right, other = without(program, ["layer1.1.conv2"]), without(program, ["layer1.0.conv2"])
    assert not check_oracle(program, PassResult(other.program, True, plan=right.plan), images(program)).passed


def conv(width: int = 6, into: int | None = None) -> nn.Module:
    return nn.Conv2d(width, into or width, 1)


def net(function: Callable[..., Any], **members: nn.Module) -> Program:
    return captured(Net(function, stem=nn.Conv2d(3, 6, 1), **members), normal(2, 3, 5, 5))


#: Name -> forward behind the stem, and the branches that can be removed.
STRUCTURES: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "shortcut": (lambda s, x: (x + s.b(s.a(x).relu())).relu(), ["b"]),
    "branch first": (lambda s, x: s.a(x).add_(x).relu_(), ["a"]),
    "projection": (lambda s, x: s.a(x) + s.b(x).relu(), ["a", "b"]),
    "no weights": (lambda s, x: s.a(x + x.relu()), []),
    "a value is used elsewhere": (lambda s, x: [y := s.a(x), x + s.b(y), y.mean()][1:], []),
    "other starts": (lambda s, x: [y := s.c(x), s.a(x) + s.b(y), y.mean()][1:], []),
    "concatenation": (lambda s, x: torch.cat([x, s.a(x)], 1), []),
    "difference": (lambda s, x: x - s.a(x), []),
    "scaled": (lambda s, x: torch.add(x, s.a(x), alpha=2), []),
    "broadcast": (lambda s, x: x.mean((2, 3), keepdim=True) + s.a(x), []),
    "nested": (lambda s, x: x + s.a((y := s.b(x)) + s.c(y)), ["c", "a"]),
    "nested at the end": (lambda s, x: x + ((y := s.a(x)) + s.b(y)), ["b", "a"]),
    "two in a sum": (lambda s, x: x + (s.a(x) + s.b(x)), ["a", "b"]),
    "gated": (lambda s, x: x + s.a(x) * s.b(x).sigmoid(), ["b"]),
    "another value besides": (lambda s, x: (y := s.a(x)) + s.b(y * x), ["b"]),
    "written in place": (lambda s, x: [y := x + s.a(x), y[:, 0].zero_(), y][-1], []),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(name: str) -> None:
    function, expected = STRUCTURES[name]
    program = net(lambda s, x: function(s, s.stem(x)), a=conv(), b=conv(), c=conv())
    assert names_of(program) == expected
    for branch in expected:
        check_removed(program, without(program, [branch]))


def test_an_output_stays_another_tensor_than_inputs_and_outputs() -> None:
    assert names_of(captured(Net(lambda s, x: x + s.a(x), a=conv(3)), normal(2, 3, 4, 4))) == []
    assert names_of(net(lambda s, x: [y := s.stem(x), y + s.a(y)], a=conv())) == []
    inside = captured(Net(lambda s, x: s.b(x + s.a(x)), a=conv(3), b=conv(3)), normal(2, 3, 4, 4))
    check_removed(inside, without(inside, names_of(inside)))


def test_one_after_another() -> None:
    """What is left of a sum when one side goes, and branches within branches."""
    both = net(lambda s, x: (y := s.stem(x)) + (s.a(y) + s.b(y)), a=conv(), b=conv())
    check_removed(both, without(both, ["a", "b"]))
    with pytest.raises(InputError, match="no residual branch b"):
        remove_branches(net(lambda s, x: s.a(y := s.stem(x)) + s.b(y), a=conv(), b=conv()), ["a", "b"])
    nested = net(lambda s, x: (y := s.stem(x)) + ((z := s.a(y)) + s.b(z)), a=conv(), b=conv())
    check_removed(nested, without(nested, ["b", "a"]))
    with pytest.raises(InputError, match="no residual branch b"):
        remove_branches(nested, ["a", "b"])
    first, second = without(nested, ["b"]), without(remove_branches(nested, ["b"]), ["a"])
    assert first.plan is not None
    assert second.plan is not None
    check_removed(nested, PassResult(second.program, True, plan=first.plan.then(second.plan)))


def test_a_layer_that_is_called_twice_goes_with_its_last_call() -> None:
    program = net(lambda s, x: (z := (y := s.stem(x)) + s.a(y)) + s.a(z).relu(), a=conv())
    once = without(program, ["a"])
    assert once.plan is not None
    assert once.plan.gone == {}
    check_removed(program, once)
    twice = without(program, ["a", "a"])
    assert twice.plan is not None
    assert twice.plan.gone == {"a.weight": "a", "a.bias": "a"}
    check_removed(program, twice)


class DropPath(nn.Module):
    """Stochastic depth as timm writes it."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * torch.rand(len(x), 1, 1, 1).round()


def test_masks_and_stochastic_depth() -> None:
    program = net(lambda s, x: s.b((y := s.stem(x)) + s.drop(s.a(y))), a=conv(), b=conv(), drop=DropPath())
    program.masks = {name: torch.ones_like(program.tensors()[name]).bool() for name in ("a.weight", "b.weight")}
    result = without(program, ["a"])
    assert set(result.program.masks) == {"b.weight"}
    assert check_oracle(program, result, images(program)).passed


def test_files(tmp_path: Path) -> None:
    program = captured(imagenet_resnet(BasicBlock, (2, 1, 1, 1)), normal(2, 3, 32, 32))
    left = remove_branches(program, ["layer1.0.conv2", "layer2.0.conv2"]).single()
    left.save(tmp_path / "model.pt2")
    again = Program.load(tmp_path / "model.pt2")
    x = torch.randn(2, 3, 32, 32)
    assert relative_error(again(x), left(x)) < 1e-6
    assert again.tensors().keys() == left.tensors().keys()
    export_onnx(again, tmp_path / "model.onnx")
    assert onnx_vs_torch(again, tmp_path / "model.onnx", seed=0) < 1e-4


@pytest.mark.parametrize("name", [*ARCHITECTURES, "convnext"])
def test_a_file_has_the_same_work(name: str, tmp_path: Path) -> None:
    build, size, _ = ARCHITECTURES.get(name, (convnext, 16, 2))
    program = captured(build(), normal(2, 3, size, size))
    sums = {branch.joined: branch.name for branch in find_branches(program)}
    left = remove_branches(program, list(sums.values()))
    left.save(tmp_path / "model.pt2")
    expected = work_of(left)
    assert any(operation.tail_of for operation in expected.operations) == (name not in ("mobilenet_v2", "convnext"))
    assert not any(operation.tail_of for operation in work_of(program).operations)
    for again in (Program.load(tmp_path / "model.pt2"), left.inference(), left.double()):
        assert_equal_work(work_of(again), expected)


def assert_equal_work(found: Work, expected: Work) -> None:
    assert found.operations == expected.operations
    for count in COUNTS:
        np.testing.assert_allclose(getattr(found, count), getattr(expected, count), rtol=1e-12, err_msg=count)


def test_random_networks() -> None:
    found = 0
    for seed in range(16):
        program = random_program(seed, steps=5)
        names = names_of(program)
        found += len(names)
        for name in names[:2]:
            result = without(program, [name])
            assert check_oracle(program, result, images(program)).passed, (seed, name)
    assert found > 3


BRANCH = RemovedBranch("b.conv", ("b.conv.weight",), ("b.conv.weight",))


def test_plans_as_json() -> None:
    plan = PruningPlan({"a": {0: [1, 2]}}, removed_branches=(BRANCH, RemovedBranch("a", ("a.weight",))))
    assert PruningPlan.from_json(plan.to_json()) == plan
    assert PruningPlan({"a": {0: [1]}}).to_json() == '{"a":{"0":[1]}}\n'
    assert not PruningPlan({}, removed_branches=(BRANCH,)).is_empty


@pytest.mark.parametrize(
    "text",
    ["3", "[3]", '{"a": 1}', "[{}]", '[{"name": 3, "tensors": [], "zeroed": []}]', '[{"name": "a", "tensors": []}]',
     '[{"name": "a", "tensors": [1], "zeroed": []}]', '[{"name": "a", "tensors": "a", "zeroed": []}]'],
)  # fmt: skip
def test_damaged_branches_of_a_plan(text: str) -> None:
    with pytest.raises(InputError, match="can't be read"):
        PruningPlan.from_json(f'{{"removed_branches": {text}}}')


def test_a_plan_of_another_network() -> None:
    program = net(lambda s, x: (y := s.stem(x)) + s.a(y), a=conv())
    for branch in (BRANCH, RemovedBranch("a", ("stem.weight",))):
        with pytest.raises(InputError):
            apply_plan_to_program(program, PruningPlan({}, removed_branches=(branch,)))


def test_the_users_own_transformer() -> None:
    network, x = ViT(16, 8, 24, 2, 3, 10), normal(2, 3, 16, 16)
    program = captured(network, x)
    result = without(program, ["blocks.0.mlp.2", "blocks.1.projection"])
    assert result.plan is not None
    with pytest.warns(BranchesStayWarning, match="the 2 branches that the plan removes: blocks.0.mlp.2, blocks.1.pro"):
        apply_plan(network, result.plan, (x,))
    with torch.no_grad():
        assert relative_error(network(x), result.program(x)) < TOLERANCE


@pytest.mark.parametrize("name", ["basic", "convnext"])
def test_the_users_own_module(name: str) -> None:
    build, size, _ = ARCHITECTURES.get(name, (convnext, 16, 2))
    network = build()
    x = normal(2, 3, size, size)
    program = captured(network, x)
    first = random_prune(program, 3, least=4)
    assert first.plan is not None
    branch = names_of(program)[0]
    pruned, removed = removal(first.program, [branch])
    plan = PruningPlan(first.plan.kept, first.plan.sizes_in_code, removed_branches=removed)
    again = random_prune(pruned, 4, least=2)
    assert again.plan is not None
    for result, whole in ((pruned, plan), (again.program, plan.then(again.plan))):
        own = copy.deepcopy(network)
        with pytest.warns(BranchesStayWarning, match=branch):
            applied = apply_plan(own, whole, (x,))
        assert applied.checked
        assert applied.zeroed == {branch: removed[0].zeroed}
        assert not own.get_submodule(branch).weight.any()
        with torch.no_grad():
            assert relative_error(own(x), result(x)) < TOLERANCE
    own = copy.deepcopy(network)
    with pytest.warns(BranchesStayWarning), pytest.warns(NotCheckedWarning):
        apply_plan(own, PruningPlan({}, removed_branches=removed))
    with torch.no_grad():
        assert relative_error(own(x), remove_branches(program, [branch])(x)) < TOLERANCE


def test_a_branch_that_zeros_do_not_silence_is_refused() -> None:
    network = Net(lambda s, x: (y := s.stem(x)) + s.a(y).sigmoid(), stem=nn.Conv2d(3, 6, 1), a=conv())
    result = without(captured(network, normal(2, 3, 4, 4)), ["a"])
    assert result.plan is not None
    before = copy.deepcopy(network.state_dict())
    claimed = RemovedBranch("a", ("a.weight", "a.bias"), ("a.weight", "a.bias"))
    for plan in (result.plan, PruningPlan({}, removed_branches=(claimed,))):
        with pytest.raises(UnsupportedModelError, match="removes a, which can't be taken out"):
            apply_plan(network, plan, (normal(2, 3, 4, 4),))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
