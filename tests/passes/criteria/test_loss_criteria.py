"""Criteria that look at derivatives of the loss, or at what layers read: identities of their definitions."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import conv2d, cross_entropy

from prunec.calibration import collect_evidence
from prunec.passes import Program, PruneFilters, Sparsify, analyse
from prunec.passes.coupling import Group
from prunec.passes.criteria import BatchNormGate, Evidence, GateGradient, InputActivation, WeightGradient
from prunec.passes.criteria.catalogue import resolve
from prunec.passes.criteria.evidence import evidence_for
from prunec.passes.criteria.magnitude_activation import MagnitudeActivation
from prunec.passes.criteria.snip import Snip
from prunec.passes.criteria.taylor import Taylor
from prunec.passes.errors import UsageError
from tests.passes.checks import Net, captured, normal
from tests.passes.criteria.networks import Batches, data, grouped, linear, residual
from tests.passes.criteria.normed_network import normed

BY_GRADIENTS = ("taylor", "taylor{form=weights}", "skeletonization", "snip", "magnitude-gradient")


def measured(program: Program, *texts: str, batches: Batches | None = None, loss: Any = cross_entropy) -> Evidence:
    evidence = collect_evidence(program, texts, data() if batches is None else batches, loss)
    return evidence_for(resolve(texts[0]), program, evidence)


def gradients(program: Program, batches: Batches) -> Iterator[dict[str, Tensor]]:
    """Brute force: the gradients of each batch's loss."""
    copy = program.clone()
    parameters = copy.parameters()
    for inputs, labels in batches:
        found = torch.autograd.grad(cross_entropy(copy(inputs), labels), list(parameters.values()))
        yield dict(zip(parameters, found, strict=True))


def detached(program: Program) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in program.parameters().items()}


def score(text: str, group: Group, evidence: Evidence) -> Tensor:
    found: np.ndarray[Any, Any] = resolve(text).score(group, evidence)  # type: ignore[attr-defined]
    assert found.dtype == np.float64
    return torch.from_numpy(found)


def sums(program: Program, group: Group, values: dict[str, Tensor]) -> Tensor:
    """Brute force: the sum of values over the weights of each unit."""
    total = torch.zeros(group.count, dtype=torch.float64)
    for position in group.producers:
        member = group.members[position]
        for unit, slices in enumerate(group.slices[position]):
            rows = values[member.parameter].index_select(member.dim, torch.from_numpy(slices))
            total[unit] += rows.sum().double()
    return total


def test_the_gate_behind_a_batch_norm_has_the_gradient_of_its_scale_and_shift() -> None:
    """No gate is needed: the derivative by one that is there, by autograd, is gamma dL/dgamma + beta dL/dbeta."""
    program = captured(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 6), nn.Flatten()),
        normal(2, 3, 8, 8),
    )
    batches = data(1)
    t = {name: tensor.detach() for name, tensor in program.tensors().items()}
    gate = torch.ones(6, dtype=torch.float64, requires_grad=True)
    y = conv2d(batches[0][0], t["0.weight"], t["0.bias"])
    y = nn.functional.batch_norm(y, t["1.running_mean"], t["1.running_var"], t["1.weight"], t["1.bias"])
    y = conv2d((gate.reshape(1, -1, 1, 1) * y).relu(), t["3.weight"], t["3.bias"]).flatten(1)
    (expected,) = torch.autograd.grad(cross_entropy(y, batches[0][1]), [gate])
    (gradient,) = gradients(program, batches)
    by_norm = t["1.weight"] * gradient["1.weight"] + t["1.bias"] * gradient["1.bias"]
    torch.testing.assert_close(by_norm, expected, rtol=0, atol=1e-15)
    (group,) = analyse(program).groups
    evidence = measured(program, "taylor", "taylor-bn", "skeletonization", batches=batches)
    torch.testing.assert_close(score("taylor", group, evidence), expected.square(), rtol=1e-10, atol=0)
    torch.testing.assert_close(score("taylor-bn", group, evidence), expected.square(), rtol=1e-10, atol=0)
    torch.testing.assert_close(score("skeletonization", group, evidence), -expected, rtol=1e-10, atol=0)


def test_taylor_and_taylor_bn_agree_where_every_layer_has_its_batch_norm() -> None:
    program = normed()
    evidence = measured(program, "taylor", "taylor-bn")
    groups = analyse(program).groups
    assert any(len(group.producers) > 2 for group in groups), "a stream is among them"
    for group in groups:
        torch.testing.assert_close(score("taylor-bn", group, evidence), score("taylor", group, evidence))


def test_taylor_bn_stands_behind_the_batch_norms_that_read_a_stream() -> None:
    """Pre-activation: the layers that add to the stream have no batch norm of their own, those that read it have."""

    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.stem(x)
        y = y + s.a(s.before(y).relu())
        return s.head(s.last(y).relu().mean((2, 3)))  # type: ignore[no-any-return]

    norms = {"before": nn.BatchNorm2d(6), "last": nn.BatchNorm2d(6)}
    layers = {"stem": nn.Conv2d(3, 6, 3), "a": nn.Conv2d(6, 6, 1), "head": nn.Linear(6, 5)}
    program = captured(Net(forward, **layers, **norms), normal(2, 3, 8, 8))
    evidence = measured(program, "taylor-bn")
    (group,) = analyse(program).groups
    expected = []
    for gradient in gradients(program, data()):
        parts = [program.tensors()[f"{n}.{t}"] * gradient[f"{n}.{t}"] for n in norms for t in ("weight", "bias")]
        expected.append(sum(parts, torch.zeros(6)).square())
    torch.testing.assert_close(score("taylor-bn", group, evidence), torch.stack(expected).mean(0).detach())


def test_taylor_bn_names_the_layers_without_a_batch_norm() -> None:
    program = residual()
    evidence = measured(program, "taylor-bn")
    with pytest.raises(UsageError, match="taylor-bn looks at batch norms, and the filters of a, depthwise have none"):
        PruneFilters(ratio=0.5, criterion="taylor-bn").run(program, evidence)
    assert PruneFilters(ratio=0.5, criterion="taylor-bn", ignore=("a",)).run(program, evidence).modified


def test_of_a_linear_network_taylor_is_the_squared_change_of_the_loss() -> None:
    """Where the loss is linear in a unit, first order is all there is; a stream of two layers goes as one."""

    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.first(x)
        return s.last(y + s.second(x))  # type: ignore[no-any-return]

    layers = {"first": nn.Linear(4, 6), "second": nn.Linear(4, 6), "last": nn.Linear(6, 3)}
    program = captured(Net(forward, **layers), normal(2, 4))
    batch: Any = [(normal(5, 4, seed=3), normal(5, 3, seed=4))]

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs * labels).mean()

    evidence = measured(program, "taylor", "skeletonization", batches=batch, loss=loss)
    (group,) = analyse(program).groups
    whole = float(loss(program(batch[0][0]), batch[0][1]).detach())
    changes = []
    for unit in range(group.count):
        copy = program.clone()
        with torch.no_grad():
            for name in ("first", "second"):
                copy.tensors()[f"{name}.weight"][unit] = 0
                copy.tensors()[f"{name}.bias"][unit] = 0
            changes.append(float(loss(copy(batch[0][0]), batch[0][1])) - whole)
    change = torch.tensor(changes, dtype=torch.float64)
    torch.testing.assert_close(score("taylor", group, evidence), change.square(), rtol=1e-8, atol=1e-16)
    torch.testing.assert_close(score("skeletonization", group, evidence), change, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("network", [residual, grouped, linear, normed])
def test_criteria_of_gradients_equal_brute_force(network: Callable[[], Program]) -> None:
    program = network()
    evidence = measured(program, *BY_GRADIENTS)
    found, weights = list(gradients(program, data())), detached(program)
    squares = {name: sum((w * g[name]).square() for g in found) / len(found) for name, w in weights.items()}
    products = {name: (w * sum(g[name] for g in found) / len(found)).abs() for name, w in weights.items()}
    total = sum(float(value.sum()) for value in products.values() if value.ndim > 1)
    for group in analyse(program).groups:
        by_weights = sums(program, group, squares)  # type: ignore[arg-type]
        torch.testing.assert_close(score("taylor{form=weights}", group, evidence), by_weights)
        saliency = sums(program, group, products)
        torch.testing.assert_close(score("magnitude-gradient", group, evidence), saliency)
        torch.testing.assert_close(score("snip", group, evidence), saliency / total)


def test_skeletonization_is_taylor_without_the_square() -> None:
    program = normed()
    one = measured(program, "taylor", "skeletonization", batches=data(1))
    relevances = {group: score("skeletonization", group, one) for group in analyse(program).groups}
    for group, relevance in relevances.items():
        torch.testing.assert_close(relevance.square(), score("taylor", group, one))
    assert min(map(torch.min, relevances.values())) < 0 < max(map(torch.max, relevances.values()))
    several = measured(program, "skeletonization")
    each = [measured(program, "skeletonization", batches=[batch]) for batch in data()]
    for group in analyse(program).groups:
        mean = torch.stack([score("skeletonization", group, evidence) for evidence in each]).mean(0)
        torch.testing.assert_close(score("skeletonization", group, several), mean)


def test_the_linear_error_of_a_softmax_has_the_cross_entropy_s_gradient_times_twice_the_probability() -> None:
    """What `Skeletonization` says of the error that it takes."""
    outputs, labels = normal(7, 5).requires_grad_(), torch.arange(7) % 5
    probabilities = outputs.softmax(1)
    linear_error = (nn.functional.one_hot(labels, 5) - probabilities).abs().sum()
    (of_linear,) = torch.autograd.grad(linear_error, [outputs], retain_graph=True)
    (of_entropy,) = torch.autograd.grad(cross_entropy(outputs, labels, reduction="sum"), [outputs])
    right = probabilities.detach().gather(1, labels[:, None])
    torch.testing.assert_close(of_linear, 2 * right * of_entropy)


def test_snip_is_the_normalised_derivative_by_a_mask_of_ones() -> None:
    """The derivative by a mask c = 1 on the weights, by autograd, is w dL/dw exactly; shares sum to 1."""
    program = residual()
    (batch,) = data(1)
    names = [name for name, tensor in program.parameters().items() if tensor.ndim > 1]
    tensors = {name: tensor.detach() for name, tensor in program.tensors().items()}
    masks = {name: torch.ones_like(tensors[name], requires_grad=True) for name in names}
    masked = tensors | {name: tensors[name] * mask for name, mask in masks.items()}
    loss = cross_entropy(functional_call(program.module, masked, (batch[0],)), batch[1])
    by_mask = dict(zip(names, torch.autograd.grad(loss, list(masks.values())), strict=True))
    (gradient,) = gradients(program, [batch])
    assert all(torch.equal(by_mask[name], tensors[name] * gradient[name]) for name in names)
    evidence = measured(program, "snip", batches=[batch])
    total = sum(float(each.abs().sum()) for each in by_mask.values())
    shares = {name: Snip().score_elements(tensors[name], replaced(evidence, name)) for name in names}
    for name in names:
        torch.testing.assert_close(shares[name], by_mask[name].abs() / total)
    assert sum(float(share.sum()) for share in shares.values()) == pytest.approx(1)
    count, keep = sum(tensor.numel() for tensor in shares.values()), 0.3
    every = torch.cat([share.flatten() for share in shares.values()])
    threshold = every.topk(int(count * keep)).values[-1]
    assert sum(int((share >= threshold).sum()) for share in shares.values()) == int(count * keep)


def replaced(evidence: Evidence, layer: str) -> Evidence:
    from dataclasses import replace

    return replace(evidence, layer=layer)


def test_snip_sums_all_saliencies_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunec.passes.criteria import saliency

    calls = []
    total = saliency.total_saliency

    def counting(evidence: Evidence) -> float:
        calls.append(evidence)
        return total(evidence)

    monkeypatch.setattr(saliency, "total_saliency", counting)
    program = residual()
    evidence = collect_evidence(program, ["snip"], data(), cross_entropy)
    PruneFilters(ratio=0.5, criterion="snip").run(program, evidence)
    assert len(calls) == 1
    PruneFilters(ratio=0.5, criterion="snip").run(program, evidence)
    assert len(calls) == 2, "each pass has its own tensors"


def test_of_a_loss_without_gradients_snip_is_zero_everywhere() -> None:
    program = residual()
    evidence = measured(program, "snip", loss=lambda outputs, labels: (outputs * 0).sum())
    assert all(not score("snip", group, evidence).any() for group in analyse(program).groups)


def read_by(program: Program) -> dict[str, Tensor]:
    """Brute force: mean magnitude of the channels that each layer of `residual` reads."""
    x = torch.cat([inputs for inputs, _ in data()])
    t = {name: tensor.detach() for name, tensor in program.tensors().items()}
    read = {"stem": x}
    norm = (t[f"norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    y = nn.functional.batch_norm(conv2d(x, t["stem.weight"]), *norm).relu()
    read["a"] = y
    read["depthwise"] = conv2d(y, t["a.weight"], t["a.bias"])
    read["b"] = conv2d(read["depthwise"], t["depthwise.weight"], t["depthwise.bias"], padding=1, groups=6).relu()
    read["head"] = (y + conv2d(read["b"], t["b.weight"], t["b.bias"])).relu().mean((2, 3))
    return {f"{name}.weight": each.abs().transpose(0, 1).flatten(1).mean(1) for name, each in read.items()}


def test_magnitude_times_activation_equals_brute_force() -> None:
    program = residual()
    evidence = measured(program, "magnitude-activation")
    scaled = {}
    for name, inputs in read_by(program).items():
        torch.testing.assert_close(evidence.of(InputActivation("absolute"), name), inputs)
        weight = program.tensors()[name].detach().abs()
        shape = (-1, 1, 1, 1) if name == "depthwise.weight" else (1, -1, *[1] * (weight.ndim - 2))
        scaled[name] = weight * inputs.reshape(shape)
    for group in analyse(program).groups:
        found = score("magnitude-activation", group, evidence)
        torch.testing.assert_close(found, sums(program, group, scaled))
    here = replaced(evidence, "b.weight")
    found = MagnitudeActivation().score_elements(program.tensors()["b.weight"], here)
    torch.testing.assert_close(found, scaled["b.weight"])


def test_each_group_of_a_convolution_reads_its_own_channels() -> None:
    program = grouped()
    evidence = measured(program, "magnitude-activation")
    inputs = evidence.of(InputActivation("absolute"), "b.weight")
    weight = program.tensors()["b.weight"].detach().abs()  # (8, 4, 3, 3), of two groups
    expected = torch.cat([weight[:4] * inputs[:4].reshape(1, 4, 1, 1), weight[4:] * inputs[4:].reshape(1, 4, 1, 1)])
    found = MagnitudeActivation().score_elements(program.tensors()["b.weight"], replaced(evidence, "b.weight"))
    torch.testing.assert_close(found, expected)


def test_transposed_convolutions_read_along_their_first_axis() -> None:
    program = captured(
        nn.Sequential(nn.ConvTranspose2d(3, 6, 2), nn.ReLU(), nn.Conv2d(6, 5, 9), nn.Flatten()), normal(2, 3, 8, 8)
    )
    evidence = measured(program, "magnitude-activation")
    (group,) = analyse(program).groups
    inputs = torch.cat([x for x, _ in data()]).abs().transpose(0, 1).flatten(1).mean(1)
    expected = (program.tensors()["0.weight"].detach().abs() * inputs.reshape(3, 1, 1, 1)).sum((0, 2, 3))
    torch.testing.assert_close(score("magnitude-activation", group, evidence), expected)


def test_layers_whose_inputs_are_not_known_are_named() -> None:
    """A product with a matrix is no linear layer; criteria of gradients know it all the same."""

    def forward(s: Net, x: Tensor) -> Tensor:
        return s.head((x @ s.matrix).relu())  # type: ignore[no-any-return]

    program = captured(Net(forward, matrix=nn.Parameter(normal(4, 6)), head=nn.Linear(6, 5)), normal(2, 4))
    batches: Any = [(normal(4, 4), torch.arange(4))]
    evidence = measured(program, "magnitude-activation", "taylor{form=weights}", batches=batches)
    with pytest.raises(UsageError, match="looks at inputs of convolutions and linear layers, and none multiplies with"):
        PruneFilters(ratio=0.5, criterion="magnitude-activation").run(program, evidence)
    assert PruneFilters(ratio=0.5, criterion="taylor{form=weights}").run(program, evidence).modified


@pytest.mark.parametrize("text", ["snip", "magnitude-gradient", "magnitude-activation"])
def test_single_weights_are_masked_by_them(text: str) -> None:
    program = residual()
    evidence = measured(program, text)
    masks = Sparsify(criterion=text).run(program, evidence).program.masks
    scores = resolve(text).score_elements(program.tensors()["a.weight"], replaced(evidence, "a.weight"))  # type: ignore[attr-defined]
    kept = scores[..., 0, 0].unflatten(1, (-1, 4)).topk(2).indices.sort().values
    assert torch.equal(masks["a.weight"][..., 0, 0].unflatten(1, (-1, 4)).nonzero()[:, 2].reshape(kept.shape), kept)


def test_a_weight_with_two_names_counts_once() -> None:
    tied = nn.Linear(6, 6)

    def forward(s: Net, x: Tensor) -> Tensor:
        return s.head(s.second(s.first(s.stem(x)).relu()).relu())  # type: ignore[no-any-return]

    program = captured(Net(forward, stem=nn.Linear(3, 6), first=tied, second=tied, head=nn.Linear(6, 5)), normal(2, 3))
    batches: Any = [(normal(4, 3), torch.arange(4))]
    evidence = measured(program, "magnitude-gradient", batches=batches)
    (group,) = analyse(program).groups
    t = {name: tensor.detach() for name, tensor in program.tensors().items()}
    expected = torch.zeros(6, dtype=torch.float64)
    for name in ("stem.weight", "first.weight"):
        expected += (t[name] * evidence.of(WeightGradient("mean"), name)).abs().sum(1)
    torch.testing.assert_close(score("magnitude-gradient", group, evidence), expected)


def test_one_look_at_the_data_serves_all() -> None:
    program = normed()
    texts = ("taylor", "taylor-bn", "snip", "skeletonization", "magnitude-gradient", "magnitude-activation")
    evidence = measured(program, *texts)
    assert evidence.passes == (1, 1)
    assert evidence.samples == 12
    expected = {GateGradient("square"), GateGradient("mean"), BatchNormGate("square"), WeightGradient("mean")}
    assert {statistic for statistic, _ in evidence.measured} == {*expected, InputActivation("absolute")}
    for text in texts:
        alone = measured(program, text)
        for group in analyse(program).groups:
            assert torch.equal(score(text, group, evidence), score(text, group, alone))


@pytest.mark.parametrize("form", ["gates", "", 1])
def test_forms_of_taylor(form: Any) -> None:
    with pytest.raises(UsageError, match="taylor: form is"):
        Taylor(form)
