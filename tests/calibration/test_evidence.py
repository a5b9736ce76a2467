"""Evidence equals brute force: loops over samples, autograd, and finite differences."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from prunec.calibration import collect_evidence
from prunec.passes import PruneFilters, Sparsify, analyse, check_oracle
from prunec.passes.criteria import (
    Activation,
    Evidence,
    GateGradient,
    InputActivation,
    InputMoments,
    Seen,
    Statistic,
    WeightGradient,
)
from prunec.passes.criteria.protocol import Source
from prunec.passes.criteria.units import as_filters
from prunec.passes.errors import InputError, NumericMismatchError, UsageError
from prunec.passes.groups import Group
from prunec.passes.one_shot import to_rows
from prunec.passes.policy import Policy
from prunec.passes.program import Program
from tests.passes.checks import Net, captured, images, normal
from tests.passes.criteria.plugins import Apoz, FirstOrder, Snip

Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Measures:
    """A criterion that wants statistics, whichever they are."""

    wanted: tuple[Statistic, ...]

    name: ClassVar[str] = "measures"
    needs: ClassVar[frozenset[str]] = frozenset({"inputs", "outputs", "gradients", "labels"})

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return self.wanted


def residual() -> Program:
    """A stem and a block that share channels, a depthwise layer, biases and batch norms, and a head."""

    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.norm(s.stem(x)).relu()
        y = (y + s.b(s.depthwise(s.a(y)).relu_())).relu()
        return s.head(y.mean((2, 3)))  # type: ignore[no-any-return]

    return captured(
        Net(
            forward, stem=nn.Conv2d(3, 6, 3, bias=False), norm=nn.BatchNorm2d(6), a=nn.Conv2d(6, 4, 1),
            depthwise=nn.Conv2d(4, 4, 3, padding=1, groups=4), b=nn.Conv2d(4, 6, 1), head=nn.Linear(6, 5),
        ), normal(2, 3, 6, 6),
    )  # fmt: skip


def data(count: int = 3, size: int = 4) -> Batches:
    generator = torch.Generator().manual_seed(1)
    return [
        (normal(size, 3, 6, 6, seed=10 + i), torch.randint(0, 5, (size,), generator=generator)) for i in range(count)
    ]


def measured(program: Program, *statistics: Statistic, batches: Batches | None = None) -> Evidence:
    return collect_evidence(program, [Measures(statistics)], data() if batches is None else batches, cross_entropy)


def gradients(program: Program, batches: Batches) -> Iterator[dict[str, Tensor]]:
    """Brute force: the gradients of each batch's loss."""
    copy = program.clone()
    parameters = copy.parameters()
    for inputs, labels in batches:
        found = torch.autograd.grad(cross_entropy(copy(inputs), labels), list(parameters.values()))
        yield dict(zip(parameters, found, strict=True))


def one_by_one(batches: Batches) -> Batches:
    return [(x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(len(x))]


MOMENTS: dict[str, Callable[[Tensor], Tensor]] = {"mean": lambda g: g, "absolute": torch.abs, "square": torch.square}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("per", ["batch", "sample"])
def test_weight_gradients_are_means_over_batches_or_samples(moment: Any, per: Any) -> None:
    program, statistic = residual(), WeightGradient(moment, per)
    evidence = measured(program, statistic)
    found = list(gradients(program, data() if per == "batch" else one_by_one(data())))
    for name in program.parameters():
        expected = torch.stack([MOMENTS[moment](g[name]) for g in found]).mean(0)
        torch.testing.assert_close(evidence.of(statistic, name), expected)
    assert evidence.samples == 12


def loss_with_factor(
    program: Program, names: set[tuple[str, int]], group: Group, unit: int, factor: float, batch: tuple[Tensor, Tensor]
) -> float:
    """The loss where one unit's slices of some tensors are multiplied."""
    copy = program.clone()
    with torch.no_grad():
        for member, slices in zip(group.members, group.slices, strict=True):
            if (member.parameter, member.dim) in names:
                tensor = copy.tensors()[member.parameter]
                rows = torch.from_numpy(slices[unit])
                tensor.index_copy_(member.dim, rows, factor * tensor.index_select(member.dim, rows))
        return float(cross_entropy(copy(batch[0]), batch[1]))


def test_gate_gradients_are_finite_differences_of_a_factor_on_the_unit() -> None:
    program = residual()
    statistic = GateGradient("mean")
    evidence = measured(program, statistic, batches=data(1))
    stands_on = {
        "stem": {("norm.weight", 0), ("norm.bias", 0), ("b.weight", 0), ("b.bias", 0)},
        "a": {("a.weight", 0), ("a.bias", 0)},  # the depthwise convolution passes them on
    }
    groups = analyse(program).groups
    assert {group.name for group in groups} == set(stands_on)
    step = 1e-5
    for group in groups:
        names = stands_on[group.name]
        for unit in range(group.count):
            factors, batch = (1 + step, 1 - step), data(1)[0]
            up, down = (loss_with_factor(program, names, group, unit, factor, batch) for factor in factors)
            assert float(evidence.of(statistic, group)[unit]) == pytest.approx(
                (up - down) / (2 * step), rel=1e-6, abs=1e-9
            )


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_gate_gradients_are_squared_before_they_are_averaged(per: Any) -> None:
    program, statistic = residual(), GateGradient("square", per)
    evidence = measured(program, statistic)
    group = next(group for group in analyse(program).groups if group.name == "stem")
    found = []
    for gradient in gradients(program, data() if per == "batch" else one_by_one(data())):
        products = [
            (program.parameters()[name] * gradient[name]).flatten(1).sum(1)
            if gradient[name].ndim > 1
            else program.parameters()[name] * gradient[name]
            for name in ("norm.weight", "norm.bias", "b.weight", "b.bias")
        ]
        found.append(torch.stack(products).sum(0).square())
    torch.testing.assert_close(evidence.of(statistic, group), torch.stack(found).mean(0).detach())


def test_a_tensor_with_two_names_counts_once_in_a_gate() -> None:
    tied = nn.Linear(6, 6)

    def forward(s: Net, x: Tensor) -> Tensor:
        return s.head(s.second(s.first(s.stem(x)).relu()).relu())  # type: ignore[no-any-return]

    layers = {"stem": nn.Linear(3, 6), "first": tied, "second": tied, "head": nn.Linear(6, 5)}
    program = captured(Net(forward, **layers), normal(2, 3))
    batch = (normal(4, 3), torch.arange(4))
    (group,) = analyse(program).groups
    found = measured(program, GateGradient("mean"), batches=[batch]).of(GateGradient("mean"), group)
    names = {(f"{layer}.{kind}", 0) for layer in ("stem", "first") for kind in ("weight", "bias")}
    for unit in range(group.count):
        up, down = (loss_with_factor(program, names, group, unit, factor, batch) for factor in (1 + 1e-5, 1 - 1e-5))
        assert float(found[unit]) == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-9)


def test_activations_are_those_behind_the_norm_and_the_activation() -> None:
    program = residual()
    kinds: dict[str, Callable[[Tensor], Tensor]] = {**MOMENTS, "zeros": lambda y: (y == 0).double()}
    evidence = measured(program, *(Activation(kind) for kind in kinds))  # type: ignore[arg-type]
    x = torch.cat([inputs for inputs, _ in data()])
    t = program.tensors()
    stem = nn.functional.conv2d(x, t["stem.weight"])
    norm = nn.functional.batch_norm(
        stem, t["norm.running_mean"], t["norm.running_var"], t["norm.weight"], t["norm.bias"]
    )
    stem = norm.relu()
    a = nn.functional.conv2d(stem, t["a.weight"], t["a.bias"])
    depthwise = nn.functional.conv2d(a, t["depthwise.weight"], t["depthwise.bias"], padding=1, groups=4).relu()
    b = nn.functional.conv2d(depthwise, t["b.weight"], t["b.bias"])
    head = nn.functional.linear((stem + b).relu().mean((2, 3)), t["head.weight"], t["head.bias"])
    places = {"stem": stem, "a": a, "depthwise": depthwise, "b": b, "head": head}
    for kind, function in kinds.items():
        for name, outputs in places.items():
            expected = function(outputs.detach()).transpose(0, 1).flatten(1).mean(1)
            torch.testing.assert_close(evidence.of(Activation(kind), f"{name}.weight"), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 7), (2, 3, 120, 120)])
def test_activations_of_any_type_are_averaged_over_all_but_the_channels(dtype: torch.dtype, shape: Any) -> None:
    values = [normal(*shape, seed=seed).relu().to(dtype) for seed in (1, 2)]
    every = torch.cat([value.double().transpose(0, 1).flatten(1) for value in values], dim=1)
    for statistic, expected in ((Activation(), every), (InputActivation("zeros"), (every == 0).double())):
        state = statistic.update(None, Seen(values[0]))
        found = statistic.result(statistic.update(state, Seen(values[1])))
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected.mean(1), rtol=1e-6, atol=1e-9)


def test_statistics_leave_what_they_see_as_it_is() -> None:
    for statistic, value in ((WeightGradient("mean"), normal(3, 2)), (GateGradient("mean"), normal(3))):
        before = value.clone()
        statistic.update(statistic.update(None, Seen(value)), Seen(value))
        assert torch.equal(value, before)


def test_input_moments_of_batches_are_those_of_all_inputs() -> None:
    program = residual()
    evidence = measured(program, InputMoments())
    moments = evidence.of(InputMoments(), "stem.weight")
    x = torch.cat([inputs for inputs, _ in data()])
    weight = program.tensors()["stem.weight"].detach()
    outputs = nn.functional.conv2d(x, weight)
    rows = to_rows(weight)
    torch.testing.assert_close(((rows @ moments.raw) * rows).sum(), outputs.square().sum())
    torch.testing.assert_close(rows @ moments.mean, outputs.mean((0, 2, 3)))
    with pytest.raises(UsageError, match="wasn't measured at depthwise"):
        evidence.of(InputMoments(), "depthwise.weight")


def test_equal_statistics_are_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    updates: Counter[Any] = Counter()
    update = WeightGradient.update

    def counting(self: WeightGradient, state: Any, seen: Seen) -> Any:
        updates[self] += 1
        return update(self, state, seen)

    monkeypatch.setattr(WeightGradient, "update", counting)
    program = residual()
    criteria = [Measures((WeightGradient(), WeightGradient("mean"))), Snip(), Measures((WeightGradient(),))]
    collect_evidence(program, criteria, data(2), cross_entropy)
    parameters = len(program.parameters())
    assert updates == {WeightGradient(): 2 * parameters, WeightGradient("mean"): 2 * parameters}


def test_evidence_does_not_grow_with_the_data() -> None:
    def size(batches: Batches) -> int:
        every = (InputMoments(), Activation(), WeightGradient(), GateGradient(per="sample"))
        values = measured(residual(), *every, batches=batches).measured.values()
        tensors = [t for v in values for t in ([v] if isinstance(v, Tensor) else [v.mean, v.centred])]
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

    assert size(data(1, 2)) == size(data(5, 4)) > 0


def test_batches_are_read_once() -> None:
    batches = iter(data())
    criteria = [FirstOrder(), Apoz(), Snip(), "wanda"]
    evidence = collect_evidence(residual(), criteria, batches, cross_entropy)
    assert next(batches, None) is None
    assert {statistic for statistic, _ in evidence.measured} == {
        *FirstOrder().statistics, *Apoz.statistics, *Snip.statistics, InputMoments(),
    }  # fmt: skip


def test_what_is_collected_serves_the_passes() -> None:
    program = residual()
    before = {name: tensor.clone() for name, tensor in program.tensors().items()}
    evidence = collect_evidence(program, [FirstOrder(), Apoz(), Snip(), "wanda"], data(), cross_entropy)
    for criterion in (FirstOrder(), Apoz()):
        result = PruneFilters(ratio=0.5, criterion=criterion).run(program, evidence)
        assert check_oracle(program, result, images(program)).passed
    gates_of_a = evidence.of(GateGradient(), "a")
    plan = PruneFilters(ratio={"a": 0.5}, criterion=FirstOrder()).run(program, evidence).plan
    assert plan is not None
    assert plan.kept["b.weight"][1] == sorted(gates_of_a.argsort()[2:].tolist())
    masks = Sparsify(criterion=Snip()).run(program, evidence).program.masks
    scores = (program.tensors()["b.weight"] * evidence.of(WeightGradient("mean"), "b.weight")).abs()[..., 0, 0]
    assert torch.equal(masks["b.weight"][..., 0, 0].nonzero()[:, 1].view(6, 2), scores.topk(2).indices.sort().values)
    assert set(Sparsify(criterion="wanda").run(program, evidence).program.masks) == {"b.weight"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in program.tensors().items())
    assert not any(p.grad is not None for p in program.parameters().values())


def test_groups_are_those_of_the_policy() -> None:
    """Whole heads and shortened heads are other units."""

    def forward(s: Net, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(2, (2, 4)).transpose(1, 2) for f in (s.q, s.k, s.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return s.out(y).mean(1)  # type: ignore[no-any-return]

    layers = {name: nn.Linear(6, 8) for name in "qkv"}
    program = captured(Net(forward, **layers, out=nn.Linear(8, 5)), normal(2, 3, 6))
    batches = [(normal(4, 3, 6, seed=3), torch.arange(4))]
    options = PruneFilters(ratio=0.5, criterion=FirstOrder(), attention="heads")
    by_heads = collect_evidence(program, [FirstOrder()], batches, cross_entropy, policy=options.policy)
    assert options.run(program, by_heads).modified
    assert options.policy == Policy("heads")
    by_default = collect_evidence(program, [FirstOrder()], batches, cross_entropy)
    with pytest.raises(UsageError, match=r"units|measured"):
        options.run(program, by_default)


def test_training_programs_are_measured_in_their_inference_form() -> None:
    program = residual()
    expected = measured(program, WeightGradient())
    program.train()
    found = measured(program, WeightGradient())
    assert program.training
    for name in program.parameters():
        torch.testing.assert_close(found.of(WeightGradient(), name), expected.of(WeightGradient(), name))


def test_frozen_and_tied_parameters_are_measured_too() -> None:
    shared = nn.Linear(4, 4)
    program = captured(Net(lambda s, x: s.b(s.a(x).relu()), a=shared, b=shared), normal(2, 4))
    program.parameters()["a.weight"].requires_grad_(False)
    every = (WeightGradient("mean"), Activation(), InputMoments())
    batches = [(normal(3, 4), torch.arange(3))]
    evidence = measured(program, *every, batches=batches)
    for statistic in (WeightGradient("mean"), Activation()):
        one, other = (evidence.of(statistic, f"{name}.weight") for name in "ab")
        assert torch.equal(one, other)
        assert one.any()
    copy = program.clone()
    for parameter in copy.parameters().values():
        parameter.requires_grad_(True)
    inputs, labels = batches[0]
    (gradient,) = torch.autograd.grad(cross_entropy(copy(inputs), labels), [copy.parameters()["a.weight"]])
    torch.testing.assert_close(evidence.of(WeightGradient("mean"), "b.weight"), gradient)
    assert evidence.of(InputMoments(), "a.weight").count == 2 * 3  # both calls


@pytest.mark.parametrize(
    ("loss", "labels", "error", "message"),
    [
        (None, True, UsageError, "there is no loss"),
        (cross_entropy, False, UsageError, "needs labels, and the data have none"),
        (
            lambda y, t: cross_entropy(y, t, reduction="none"),
            True,
            InputError,
            r"gave shape \[4\], expected one number",
        ),
        (lambda y, t: 1.0, True, InputError, "gave float"),
        (lambda y, t: cross_entropy(y, t).detach(), True, InputError, "without gradients"),
        (lambda y, t: cross_entropy(y, t) / 0, True, NumericMismatchError, "inf"),
        (lambda y, t: y.nothing, True, InputError, "loss function failed at"),
    ],
)
def test_gradients_that_can_not_be_taken(loss: Any, labels: bool, error: type[Exception], message: str) -> None:
    batches = [(inputs, found if labels else None) for inputs, found in data(1)]
    with pytest.raises(error, match=message):
        collect_evidence(residual(), [Snip()], batches, loss)


def test_what_needs_no_data_reads_none() -> None:
    def never() -> Iterator[Any]:
        raise AssertionError
        yield

    program = residual()
    evidence = collect_evidence(program, ["l1", "magnitude"], never())
    assert evidence.measured == {}
    assert PruneFilters(ratio=0.5).run(program, evidence).plan == PruneFilters(ratio=0.5).run(program).plan
    with pytest.raises(UsageError, match="no batch"):
        collect_evidence(program, [Apoz()], [])
    assert collect_evidence(program, [Apoz()], [(inputs, None) for inputs, _ in data()]).samples == 12


def test_gradients_of_samples_need_a_dynamic_batch() -> None:
    program = captured(Net(lambda s, x: s.a(x.reshape(2, 4)), a=nn.Linear(4, 4)), normal(2, 4))
    assert not program.batch_is_dynamic
    batches = [(normal(2, 4), torch.arange(2))]
    with pytest.raises(UsageError, match="one batch size only"):
        measured(program, WeightGradient(per="sample"), batches=batches)
    assert measured(program, WeightGradient(), batches=batches).samples == 2


def test_several_inputs_come_as_a_tuple() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(3, 5)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.a(x) + self.b(y)  # type: ignore[no-any-return]

    program = captured(Two(), normal(2, 4), normal(2, 3))
    batches = [((normal(6, 4), normal(6, 3)), torch.arange(6) % 5)]
    evidence = collect_evidence(program, [Measures((WeightGradient(per="sample"),))], batches, cross_entropy)
    assert evidence.samples == 6
    assert evidence.of(WeightGradient(per="sample"), "b.weight").shape == (5, 3)


@pytest.mark.parametrize("options", [{"moment": "cube"}, {"per": "epoch"}])
def test_options_of_statistics(options: Any) -> None:
    with pytest.raises(UsageError, match=r"WeightGradient: (moment|per) is"):
        WeightGradient(**options)
    with pytest.raises(UsageError, match="Activation: moment is 'zero'"):
        Activation("zero")  # type: ignore[arg-type]


def test_filters_of_a_member_are_rows() -> None:
    program = residual()
    for group in analyse(program).groups:
        for member, slices in zip(group.members, group.slices, strict=True):
            rows = as_filters(program.tensors()[member.parameter], member)
            assert len(rows) > slices.max()
    assert all(a != b for a, b in pairwise([InputMoments(), WeightGradient(), GateGradient(), Activation()]))  # type: ignore[comparison-overlap]


@dataclass(frozen=True)
class Some:
    """A statistic of another one, of so many samples."""

    statistic: Statistic
    images: int | None

    @property
    def looks_at(self) -> Any:
        return self.statistic.looks_at

    @property
    def per(self) -> Any:
        return self.statistic.per

    def update(self, state: Any, seen: Seen) -> Any:
        assert (seen.weight is not None) == (self.looks_at == "inputs")
        return self.statistic.update(state, seen)

    def result(self, state: Any) -> Any:
        return self.statistic.result(state)


LIMITED = (
    (InputMoments(), "b.weight"), (Activation(), "stem.weight"), (WeightGradient(per="sample"), "a.weight"),
    (GateGradient(per="sample"), "stem"),
)  # fmt: skip


@pytest.mark.parametrize(("statistic", "place"), LIMITED)
@pytest.mark.parametrize("images", [1, 4, 6, 100])
def test_a_statistic_looks_at_so_many_samples(statistic: Statistic, place: str, images: int) -> None:
    """Beside another that looks at all of them."""
    program, all_data = residual(), data()
    x, y = (torch.cat(each)[:images] for each in zip(*all_data, strict=True))
    evidence = measured(program, Some(statistic, images), Some(statistic, None), Activation("zeros"))
    few, whole = (measured(program, statistic, batches=each).of(statistic, place) for each in ([(x, y)], data()))
    for limit, expected in ((images, few), (None, whole)):
        found = evidence.of(Some(statistic, limit), place)
        if isinstance(expected, Tensor):
            torch.testing.assert_close(found, expected)
        else:
            assert found.count == expected.count
            torch.testing.assert_close((found.mean, found.centred), (expected.mean, expected.centred))
    assert evidence.samples == 12


@pytest.mark.parametrize(("images", "read"), [(1, 1), (4, 1), (5, 2), (12, 3), (99, 3)])
def test_no_batch_is_read_beyond_the_samples_that_are_looked_at(images: int, read: int) -> None:
    batches = iter(data())
    wanted = Measures((Some(Activation(), images), Some(InputMoments(), 1)))
    evidence = collect_evidence(residual(), [wanted], batches, cross_entropy)
    assert len(list(batches)) == 3 - read
    assert evidence.samples == 4 * read


def test_gradients_of_whole_batches_are_taken_until_there_are_so_many_samples() -> None:
    statistic = WeightGradient("mean")
    evidence = measured(residual(), Some(statistic, 6), Activation())
    expected = measured(residual(), statistic, batches=data(2))
    torch.testing.assert_close(evidence.of(Some(statistic, 6), "a.weight"), expected.of(statistic, "a.weight"))


def test_layers_that_see_several_places_of_each_sample_are_cut_with_the_samples() -> None:
    """Tokens of all images one after the other; and a tensor that is of no sample."""

    def forward(s: Net, x: Tensor) -> Tensor:
        rows = s.a(x.flatten(2).transpose(1, 2).flatten(0, 1)).relu()
        return rows.unflatten(0, (-1, 36)).mean(1) + s.b(s.constant).mean(0)  # type: ignore[no-any-return]

    layers = {"a": nn.Linear(3, 5), "b": nn.Linear(3, 5), "constant": normal(7, 3)}
    program = captured(Net(forward, **layers), normal(2, 3, 6, 6))
    batches = [(x, y) for x, y in data()]
    evidence = measured(program, Some(InputMoments(), 3), batches=batches)
    assert evidence.of(Some(InputMoments(), 3), "a.weight").count == 3 * 36
    assert evidence.of(Some(InputMoments(), 3), "b.weight").count == 7


@dataclass(frozen=True)
class Joined(Activation):
    """`Activation` behind the sums of residual blocks."""

    looks_at: ClassVar[Source] = "joined outputs"


def test_joined_outputs_are_those_behind_the_sum_of_a_block() -> None:
    program = residual()
    evidence = measured(program, Joined(), Activation())
    for name in ("stem", "a", "depthwise", "head"):
        one, other = (evidence.of(statistic, f"{name}.weight") for statistic in (Joined(), Activation()))
        assert torch.equal(one, other)

    def block(s: Net, x: Tensor) -> Tensor:
        y = (s.norm(s.a(x)) + s.b(x)).relu()
        z = y + s.c(y)
        return s.head(z.mean((2, 3)) + z.amax((2, 3)) + s.shift)  # type: ignore[no-any-return]

    layers = {name: nn.Conv2d(*sizes, 1) for name, sizes in {"a": (3, 4), "b": (3, 4), "c": (4, 4)}.items()}
    network = Net(block, **layers, norm=nn.BatchNorm2d(4), head=nn.Linear(4, 5), shift=normal(4))
    program = captured(network, normal(2, 3, 6, 6))
    evidence, t = measured(program, Joined()), program.tensors()
    x = torch.cat([inputs for inputs, _ in data()])
    a, b = (nn.functional.conv2d(x, t[f"{name}.weight"], t[f"{name}.bias"]) for name in "ab")
    norm = (t["norm.running_mean"], t["norm.running_var"], t["norm.weight"], t["norm.bias"])
    y = (nn.functional.batch_norm(a, *norm) + b).relu()
    z = y + nn.functional.conv2d(y, t["c.weight"], t["c.bias"])
    for name, maps in {"a": y, "b": y, "c": z}.items():
        torch.testing.assert_close(evidence.of(Joined(), f"{name}.weight"), maps.detach().mean((0, 2, 3)))
