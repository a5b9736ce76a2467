"""Every claim of a pass: honest results pass, and each false claim is refused by its own message."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from prunec.passes.base import PassResult
from prunec.passes.errors import NumericMismatchError, PrunecError, SparsityGateError
from prunec.passes.fold import FoldParameters
from prunec.passes.permute import Permute
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify
from prunec.passes.tensors import copied
from prunec.passes.verify import input_unchanged, verify_pass
from tests.architectures.resnet import cifar_resnet
from tests.passes.checks import Net, captured, exchanged, normal
from tests.passes.test_rules import StandardisedConv


def convolutional() -> Program:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), StandardisedConv(16, 16, 3), nn.ReLU(),
        nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4),
    )  # fmt: skip
    return captured(network, normal(2, 3, 8, 8))


def normalised() -> Program:
    """A network in which no plan is exact."""
    network = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 4))
    return captured(network, normal(2, 8))


Mutation = Callable[[PassResult], PassResult]

PASSES: dict[str, Any] = {
    "prune-filters": PruneFilters(ratio=0.5, round_to=4),
    "permute": Permute(seconds=2),
    "sparsify": Sparsify(),
    "fold-parameters": FoldParameters(),
}


@pytest.mark.parametrize("make", [convolutional, normalised, lambda: captured(cifar_resnet(8), normal(2, 3, 8, 8))])
@pytest.mark.parametrize(
    "names",
    [
        ("fold-parameters", "prune-filters", "permute", "sparsify"),
        ("sparsify", "permute", "prune-filters", "sparsify", "sparsify"),
    ],
)
def test_honest_passes_in_any_order(make: Callable[[], Program], names: tuple[str, ...]) -> None:
    program = make()
    for name in names:
        with input_unchanged(program, name):
            result = PASSES[name].run(program)
        report = verify_pass(program, result, name)
        assert (report is None) == (result.plan is None)
        assert report is None or report.passed
        program = result.program


def pruned(make: Callable[[], Program] = convolutional) -> tuple[Program, PassResult]:
    program = make()
    return program, PASSES["prune-filters"].run(program)


def sparse() -> tuple[Program, PassResult]:
    program = convolutional()
    return program, Sparsify().run(program)


def pruned_sparse() -> tuple[Program, PassResult]:
    program = sparse()[1].program
    return program, PASSES["prune-filters"].run(program)


def other_network(function: Callable[..., Any]) -> Mutation:
    """The result with a network of this function instead of its own, over the same input."""

    def mutate(result: PassResult) -> PassResult:
        network = Net(lambda s, x: function(s.a(x).flatten(1)[:, :4]), a=nn.Conv2d(3, 4, 3))
        program = captured(network, normal(2, 3, 8, 8))
        return replace(result, program=program, plan=None)

    return mutate


def with_tensor(name: str, change: Callable[[torch.Tensor], object]) -> Mutation:
    def mutate(result: PassResult) -> PassResult:
        program = result.program.clone()
        with torch.no_grad():
            change(program.tensors()[name])
        return replace(result, program=program)

    return mutate


def with_mask(change: Callable[[torch.Tensor], torch.Tensor | None], name: str = "5.weight") -> Mutation:
    """The mask of a layer, changed or removed, and multiplied in as far as it fits."""

    def mutate(result: PassResult) -> PassResult:
        program = result.program.clone()
        mask = change(program.masks.pop("5.weight"))
        if mask is not None:
            program.masks[name] = mask
        if name in program.parameters():
            program.apply_masks()
        return replace(result, program=program)

    return mutate


def with_shape_of_weight(result: PassResult) -> PassResult:
    """A weight that no longer fits what its layer reads."""
    program = result.program
    tensors = copied(program.tensors())
    tensors["5.weight"] = nn.Parameter(tensors["5.weight"][:, :-1].detach())
    return replace(result, program=program.with_tensors(tensors))


def wrong_plan(result: PassResult) -> PassResult:
    assert result.plan is not None
    return replace(result, plan=PruningPlan({"0.weight": result.plan.kept["0.weight"]}))


def exchange_kept_index(result: PassResult) -> PassResult:
    """The plan keeps another filter of the first layer than the program does, with all that is coupled to it."""
    assert result.plan is not None
    kept = result.plan.kept["0.weight"][0]
    other = next(exchanged(result.plan, "0.weight", 0, 16)).kept["0.weight"][0]
    plan = {
        name: {dim: other if indices == kept else indices for dim, indices in dims.items()}
        for name, dims in result.plan.kept.items()
    }
    return replace(result, plan=PruningPlan(plan))


OF_FUNCTION = [
    (sparse, other_network(lambda y: y[:, :3]), r"Output 0 .* \(2, 3\) torch.float64, expected \(2, 4\) torch.float64"),
    (sparse, other_network(lambda y: y.float()), r"Output 0 .* \(2, 4\) torch.float32, expected"),
    (sparse, other_network(lambda y: (y, y)), "have the structure"),
    (sparse, with_shape_of_weight, "the-pass gave back doesn't run"),
    (pruned, wrong_plan, "plan of the-pass doesn't fit"),
    (pruned, with_tensor("0.bias", lambda t: t[0].add_(0.1)), "removed slices zeroed by"),
    (pruned, exchange_kept_index, "removed slices zeroed by"),
]
OF_MASKS = [
    (sparse, with_tensor("5.weight", lambda t: t.masked_fill_(t == 0, 1e-3)), "5.weight is False where"),
    (sparse, with_mask(lambda m: m[:, :, :1]), r"5.weight is \(8, 16, 1, 3\) torch.bool, expected \(8, 16, 3, 3\)"),
    (sparse, with_mask(lambda m: m.float()), r"5.weight is \(8, 16, 3, 3\) torch.float32, expected"),
    (sparse, with_mask(torch.ones_like), "5.weight keeps more than 2"),
    (sparse, with_mask(lambda m: m, name="nothing"), "nothing belongs to no parameter"),
    (pruned_sparse, with_mask(lambda m: None), "5.weight was lost"),
    (pruned_sparse, with_mask(torch.ones_like), "5.weight was not cut and ordered"),
]


@pytest.mark.parametrize(
    ("make", "mutate", "message", "kind"),
    [*((*case, NumericMismatchError) for case in OF_FUNCTION), *((*case, SparsityGateError) for case in OF_MASKS)],
)
def test_a_false_claim_is_refused(
    make: Callable[[], tuple[Program, PassResult]], mutate: Mutation, message: str, kind: type[PrunecError]
) -> None:
    before, result = make()
    verify_pass(before, result, "the-pass")
    with pytest.raises(kind, match=message):
        verify_pass(before, mutate(result), "the-pass")


def test_inexact_plans_are_checked_by_the_masked_oracle() -> None:
    program, result = pruned(normalised)
    report = verify_pass(program, result, "the-pass")
    assert report is not None
    assert not report.exact
    wrong = with_tensor("1.weight", lambda t: t[0].add_(0.1))(result)
    with pytest.raises(NumericMismatchError, match="differs"):
        verify_pass(program, wrong, "the-pass")


def changed_mask(program: Program) -> None:
    program.masks["0.weight"] = torch.ones(4, 4, dtype=torch.bool)


def changed_tensor(program: Program) -> None:
    with torch.no_grad():
        program.buffers()["1.running_mean"].add_(1)


def changed_graph(program: Program) -> None:
    relu = next(node for node in program.graph.nodes if "relu" in str(node.target))
    relu.target = torch.ops.aten.tanh.default


def changed_inputs(program: Program) -> None:
    program.example_inputs[0].add_(1)


CHANGES = [changed_mask, changed_tensor, changed_graph, changed_inputs, Program.train]


def small() -> Program:
    return captured(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4)), normal(2, 4))


@pytest.mark.parametrize("change", CHANGES)
def test_a_pass_that_changes_its_input_is_refused(change: Callable[[Program], object]) -> None:
    program = small()
    refused = pytest.raises(NumericMismatchError, match="the-pass changed the program that went into it")
    with refused, input_unchanged(program, "the-pass"):
        change(program)


@pytest.mark.parametrize("change", CHANGES)
def test_a_pass_that_modifies_in_secret_is_refused(change: Callable[[Program], object]) -> None:
    before = small()
    verify_pass(before, PassResult(before.clone(), modified=False), "the-pass")
    after = before.clone()
    change(after)
    with pytest.raises((NumericMismatchError, SparsityGateError), match=r"modified nothing|keeps more|training form"):
        verify_pass(before, PassResult(after, modified=False), "the-pass")


def test_removed_slices_without_a_plan_are_refused() -> None:
    program, result = pruned()
    with pytest.raises(NumericMismatchError, match=r"has the shape .* and cut gave no plan"):
        verify_pass(program, replace(result, plan=None), "cut")


def test_a_result_in_training_form_is_refused() -> None:
    program = convolutional()
    with pytest.raises(NumericMismatchError, match="cut gave the program back in training form"):
        verify_pass(program, PassResult(program.clone().train(), modified=True), "cut")


def test_an_error_of_the_pass_itself_comes_through() -> None:
    with pytest.raises(ZeroDivisionError), input_unchanged(small(), "the-pass"):
        raise ZeroDivisionError


def test_checking_changes_nothing() -> None:
    program = convolutional().train()
    result = PruneFilters(ratio=0.5).run(program)
    random = torch.get_rng_state()
    with input_unchanged(program, "before"), input_unchanged(result.program, "after"):
        verify_pass(program, result, "the-pass")
    assert torch.equal(torch.get_rng_state(), random)
