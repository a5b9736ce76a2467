"""Plans as data: JSON, replay on a program, application to the user's own module."""

import copy
import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from prunec.passes.applying import apply_plan
from prunec.passes.errors import InputError
from prunec.passes.frontend import capture
from prunec.passes.own_layers import shrink
from prunec.passes.plan import PruningPlan
from prunec.passes.planned_pruning import prune_by_plan
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.rewrite import apply_plan_to_program
from tests.architectures.mobilenet_v2 import InvertedResidual
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import BasicBlock, imagenet_resnet
from tests.passes.checks import Net, captured, check_module, images, normal, random_prune

KEPT = st.dictionaries(
    st.text(max_size=8),
    st.dictionaries(st.integers(0, 4), st.lists(st.integers(0, 99), unique=True).map(sorted), max_size=2),
    max_size=4,
)


@given(KEPT)
def test_json_round_trip(kept: dict[str, dict[int, list[int]]]) -> None:
    plan = PruningPlan(kept)
    assert PruningPlan.from_json(plan.to_json()) == plan
    again = PruningPlan.from_json(PruningPlan(kept, {"a": ["view"]}, ("fold-parameters",)).to_json())
    assert (again, again.sizes_in_code, again.rewritten_by) == (plan, {"a": ["view"]}, ("fold-parameters",))
    backwards = PruningPlan({name: dict(reversed(dims.items())) for name, dims in reversed(kept.items())})
    assert backwards.to_json() == plan.to_json()


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '{"a": [1]}', '{"a": {"x": [1]}}', '{"a": {"0": 3}}', '{"a": {"0": ["b"]}}']
)
def test_what_is_not_a_plan(text: str) -> None:
    with pytest.raises(InputError, match="can't be read"):
        PruningPlan.from_json(text)


@pytest.mark.parametrize("sizes", ['{"a": {"0": 0}}', '{"a": {"0": true}}', '{"a": {"0": "8"}}', "[1]", '{"a": 3}'])
def test_sizes_that_are_none_are_refused(sizes: str) -> None:
    with pytest.raises(InputError, match="can't be read"):
        PruningPlan.from_json(f'{{"dense_sizes": {sizes}}}')


def pair(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 4, 1)).eval()


def test_a_plan_of_a_narrower_network_is_refused() -> None:
    """Its indices all exist in the wider one, so that only the sizes tell the two apart."""
    x = torch.randn(2, 3, 4, 4)
    other, wide = capture(pair(8), (x,)), capture(pair(12), (x,))
    made = PruneFilters(ratio=0.5).run(other).plan
    assert made is not None
    plan = PruningPlan.from_json(made.to_json())
    assert plan.dense_sizes == {"0.weight": {0: 8}, "0.bias": {0: 8}, "2.weight": {1: 8}}
    appliers: list[Any] = [
        lambda: apply_plan_to_program(wide, plan),
        lambda: prune_by_plan(wide, plan),
        lambda: apply_plan(pair(12), plan, (x,)),
        lambda: apply_plan(pair(12), plan),
        lambda: plan.select_all(wide.tensors()),
    ]
    for apply in appliers:
        with pytest.raises(InputError, match=r"dimension \d of \d\.\w+ has 12 slices here, expected 8"):
            apply()
    assert apply_plan_to_program(other, plan).macs() == prune_by_plan(other, plan).program.macs()
    old = PruningPlan.from_json(json.dumps({k: v for k, v in json.loads(made.to_json()).items() if k != "dense_sizes"}))
    assert old == plan and apply_plan_to_program(wide, old).macs() < wide.macs()  # what isn't known isn't checked


def test_sizes_of_plans_in_a_row_are_those_before_the_first() -> None:
    program = capture(pair(16), (torch.randn(2, 3, 4, 4),))
    first = PruneFilters(ratio=0.5).run(program)
    second = PruneFilters(ratio=0.5).run(first.program)
    assert first.plan is not None and second.plan is not None
    both = first.plan.then(second.plan)
    assert (first.plan.dense_sizes["0.weight"], second.plan.dense_sizes["0.weight"]) == ({0: 16}, {0: 8})
    assert both.dense_sizes == first.plan.dense_sizes
    assert apply_plan_to_program(program, both).macs() == second.program.macs()


def test_sizes_hold_for_all_names_of_a_tensor() -> None:
    weight = torch.zeros(8, 3)
    plan = PruningPlan({"a": {0: [0, 1]}}, dense_sizes={"a": {0: 8}}).for_ties({"a": weight, "b": weight})
    assert plan.dense_sizes == {"a": {0: 8}, "b": {0: 8}}


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8, affine=False), nn.ReLU(),
        nn.Conv2d(8, 12, 1, groups=2), nn.ConvTranspose2d(12, 6, 2, 2), nn.Sigmoid(), nn.Flatten(),
        nn.Linear(6 * 64, 10), nn.Linear(10, 3),
    )  # fmt: skip


def test_the_users_own_module() -> None:
    network = redraw_(small().eval().double(), 0)
    program = capture(network, (normal(2, 3, 4, 4),))
    for seed in range(6):
        result = random_prune(program, seed)
        check_module(network, result, images(program))
    own = copy.deepcopy(network)
    assert result.plan is not None
    assert apply_plan(own, result.plan, (normal(2, 3, 4, 4),)).checked
    shapes = {name: tensor.shape for name, tensor in own.state_dict().items()}
    assert {n: t.shape for n, t in result.program.tensors().items()}.items() <= shapes.items()
    first, depthwise, grouped, transposed = own[0], own[3], own[6], own[7]
    width = len(first.weight)
    assert first.out_channels == own[1].num_features == own[2].num_parameters == own[4].num_features == width
    assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == width
    assert grouped.groups == 2
    assert (transposed.in_channels, transposed.out_channels) == tuple(transposed.weight.shape[:2])
    assert own[10].in_features == own[10].weight.shape[1]
    # It is a module like any other: it trains, and it can be captured again.
    own.train()(normal(2, 3, 4, 4)).sum().backward()
    assert capture(own, (normal(2, 3, 4, 4),)).macs() == result.program.macs()


@pytest.mark.parametrize(
    "network",
    [
        imagenet_resnet(BasicBlock, (1, 1, 1, 1)),
        nn.Sequential(nn.Conv2d(3, 8, 1), InvertedResidual(8, 8, 1, 4), nn.Conv2d(8, 2, 1)),
    ],
)
def test_known_architectures(network: nn.Module) -> None:
    program = captured(network, normal(2, 3, 32, 32))
    for seed in range(3):
        check_module(network, random_prune(program, seed), images(program))


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spare, self.a, self.b, self.head = nn.Linear(8, 8), nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.spare.weight = self.b.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.b(self.b(self.a(x)).relu()))  # type: ignore[no-any-return]

    network = Tied()
    program = captured(network, normal(2, 5))
    plan = PruneFilters(ratio=0.5).run(program).plan
    assert plan is not None
    # Whichever of its names the plan has.
    for names in (("b.weight",), ("spare.weight",)):
        kept = {n: dims for n, dims in plan.kept.items() if n not in ("b.weight", "spare.weight") or n in names}
        own = copy.deepcopy(network)
        shrink(own, PruningPlan(kept))
        assert own.spare.weight is own.b.weight
        assert own.b.weight.shape == (4, 4)
        assert own.b.in_features == own.spare.in_features == 4
        assert own(normal(2, 5)).shape == (2, 3)


def test_depthwise_transposed_convolutions_of_the_own_module() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 8, 2, 2, groups=8), nn.ReLU(), nn.Conv2d(8, 3, 1)
    )  # fmt: skip
    network = redraw_(network.eval().double(), 0)
    program = capture(network, (normal(2, 3, 4, 4),))
    check_module(network, PruneFilters(ratio=0.5).run(program), images(program))


def test_a_module_under_two_paths() -> None:
    shared = nn.Linear(8, 8)
    network = nn.Sequential(nn.Linear(5, 8), shared, nn.ReLU(), shared, nn.Linear(8, 3))
    program = captured(network, normal(2, 5))
    check_module(network, random_prune(program, 0), images(program))


def test_replay_on_the_dense_program() -> None:
    program = captured(small(), normal(2, 3, 4, 4))
    result = PruneFilters(ratio=0.4).run(program)
    assert result.plan is not None
    replayed = apply_plan_to_program(program, PruningPlan.from_json(result.plan.to_json()))
    x = normal(3, 3, 4, 4, seed=1)
    assert torch.equal(replayed(x), result.program(x))
    assert replayed.module.code == result.program.module.code
    assert replayed.macs() == result.program.macs()
    assert apply_plan_to_program(program, PruningPlan({})).macs() == program.macs()


def test_a_plan_after_a_plan() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 16, 10), nn.Linear(10, 3),
    )  # fmt: skip
    program = captured(network, normal(2, 3, 4, 4))
    first = PruneFilters(ratio=0.3).run(program)
    second = PruneFilters(ratio=0.3, criterion="l2").run(first.program)
    assert first.plan is not None
    assert second.plan is not None
    both = apply_plan_to_program(program, first.plan.then(second.plan))
    x = normal(3, 3, 4, 4, seed=1)
    assert torch.equal(both(x), second.program(x))
    assert not PruneFilters(speedup=1.0).run(first.program).modified


MISFITS: dict[str, Any] = {
    "no such tensor": {"7.weights": {0: [0]}},
    "no such dimension": {"0.weight": {4: [0]}},
    "negative dimension": {"0.weight": {-4: [0, 1]}},
    "index too large": {"0.weight": {0: [0, 8]}},
    "negative index": {"0.weight": {0: [-1, 2]}},
    "nothing kept": {"0.weight": {0: []}},
}
DISAGREEING: dict[str, Any] = {
    "only one member": {"0.weight": {0: [0, 1]}},
    "another order": {"10.weight": {0: [1, 0]}, "10.bias": {0: [0, 1]}, "11.weight": {1: [1, 0]}},
    "twice the same": {"10.weight": {0: [1, 1]}, "10.bias": {0: [1, 1]}, "11.weight": {1: [1, 1]}},
    "a frozen group": {"11.weight": {0: [0, 1]}, "11.bias": {0: [0, 1]}},
    "the input's channels": {"0.weight": {1: [0, 1]}},
    "a kernel": {"0.weight": {2: [0, 1]}},
    "an undistinguished dimension": {"2.weight": {0: [0, 1]}},
}


@pytest.mark.parametrize("name", [*MISFITS, *DISAGREEING])
def test_plans_that_do_not_fit_a_program_are_refused(name: str) -> None:
    program = captured(small(), normal(2, 3, 4, 4))
    with pytest.raises(InputError, match="doesn't fit"):
        apply_plan_to_program(program, PruningPlan({**MISFITS, **DISAGREEING}[name]))


@pytest.mark.parametrize("name", MISFITS)
def test_plans_that_do_not_fit_a_module_leave_it_alone(name: str) -> None:
    network = small()
    before = {key: tensor.shape for key, tensor in network.state_dict().items()}
    kept = {"10.weight": {0: [0, 1]}, **MISFITS[name]}
    with pytest.raises(InputError, match=r"doesn't (fit|have)"):
        shrink(network, PruningPlan(kept))
    assert {key: tensor.shape for key, tensor in network.state_dict().items()} == before
    assert network[10].out_features == 10


def test_a_part_of_an_axis_can_not_be_emptied() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        few, many = s.a(x).split([2, 6], 1)
        return s.b(torch.cat([few.relu(), many], 1))  # type: ignore[no-any-return]

    program = captured(Net(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 3)), normal(2, 5))
    kept = [2, 3, 4]
    plan = PruningPlan({"a.weight": {0: kept}, "a.bias": {0: kept}, "b.weight": {1: kept}})
    with pytest.raises(InputError, match="every channel of a part"):
        apply_plan_to_program(program, plan)


def test_layers_whose_sizes_are_fixed_in_the_module_are_refused() -> None:
    network = nn.Sequential(nn.Bilinear(3, 3, 4))
    before = json.dumps({k: list(v.shape) for k, v in network.state_dict().items()})
    with pytest.raises(InputError, match="0, a Bilinear"):
        shrink(network, PruningPlan({"0.weight": {1: [0, 1]}}))
    assert json.dumps({k: list(v.shape) for k, v in network.state_dict().items()}) == before
