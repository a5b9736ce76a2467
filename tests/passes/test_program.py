"""Capture, the two forms of a program, masks, files."""

import copy
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from prunec.passes.errors import InputError, UnsupportedModelError
from prunec.passes.frontend import capture
from prunec.passes.oracle import relative_error
from prunec.passes.program import Program, from_exported
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify
from prunec.passes.tensors import fingerprint
from tests.architectures.redraw import redraw_
from tests.passes.checks import Net, captured, check_exact, normal, prunable, random_prune, reasons

#: Every network is captured and written here, also one that was before.
pytestmark = pytest.mark.usefixtures("exported_anew")


def trainable() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.4),
        nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, affine=False, momentum=0.3), nn.Dropout2d(0.3), nn.Flatten(),
        nn.Linear(8 * 36, 5), nn.BatchNorm1d(5), nn.AlphaDropout(0.2),
    )  # fmt: skip


def equal(actual: Any, expected: Any) -> bool:
    left, right = torch.utils._pytree.tree_leaves(actual), torch.utils._pytree.tree_leaves(expected)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(left, right, strict=True))


def test_training_equals_the_eager_module() -> None:
    eager = redraw_(trainable(), 0)
    program = capture(eager, (normal(2, 3, 6, 6).float(),)).train()
    eager.train()
    mine = torch.optim.SGD(program.parameters().values(), lr=0.1, momentum=0.9)
    theirs = torch.optim.SGD(eager.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        x, y = normal(7, 3, 6, 6, seed=step).float(), torch.arange(7) % 5
        for forward, optimizer in ((program, mine), (eager, theirs)):
            torch.manual_seed(step)  # the dropout masks
            optimizer.zero_grad()
            F.cross_entropy(forward(x), y).backward()
            optimizer.step()
    state = eager.state_dict()
    for name, tensor in program.tensors().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor.detach(), state[name], rtol=1e-5, atol=1e-6)
    x = normal(4, 3, 6, 6).float()
    torch.testing.assert_close(program.eval()(x), eager.eval()(x), rtol=1e-5, atol=1e-5)


def test_switching_back_and_forth_changes_nothing() -> None:
    network = trainable()
    program = capture(network, (normal(2, 3, 6, 6).float(),))
    code = program.module.code
    assert program.train().training
    assert program.module.code != code
    assert program.train().eval().module.code == code
    assert all(m.training for m in network.modules())  # the module has its own mode back


def test_what_trains_in_inference_stays_so() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        return F.dropout(F.batch_norm(s.a(x), None, None, training=True), 0.5, training=True)

    program = capture(Net(forward, a=nn.Conv2d(3, 4, 1)), (normal(2, 3, 4, 4).float(),))
    code = program.module.code
    assert program.train().module.code == code
    assert program.eval().module.code == code


def test_capture_leaves_the_module_and_the_inputs_alone() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        s.calls.add_(1)
        return s.a(x.sub_(1)) * s.calls  # type: ignore[no-any-return]

    network = Net(forward, a=nn.Conv2d(3, 4, 1), calls=torch.zeros(1))
    x = normal(2, 3, 4, 4).float()
    before, state = x.clone(), copy.deepcopy(network.state_dict())
    program = capture(network, (x,))
    assert torch.equal(x, before)
    assert equal(network.state_dict(), state)
    random = torch.get_rng_state()
    capture(network, (x,))
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(program(before.clone()), network(before.clone()))


def test_another_batch_and_resolution() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    program = captured(network, normal(1, 3, 8, 8))
    assert program.batch_is_dynamic
    assert len(program.example_inputs[0]) == 2
    for x in (normal(1, 3, 8, 8), normal(5, 3, 8, 8), normal(2, 3, 11, 9)):
        assert torch.equal(program(x), network(x))


@pytest.mark.parametrize(("batch", "macs"), [(1, 8 * 27 * 16 + 128 * 4), (4, 8 * 27 * 16 + 128 * 4)])
def test_a_network_that_fixes_its_batch(batch: int, macs: int) -> None:
    network = Net(
        lambda s, x: s.b(s.a(x).relu().view(batch, -1)),
        a=nn.Conv2d(3, 8, 3, padding=1), b=nn.Linear(128, 4),
    )  # fmt: skip
    program = captured(network, normal(batch, 3, 4, 4))
    assert not program.batch_is_dynamic
    assert program.macs() == macs  # per sample
    assert prunable(check_exact(program)) == {"a": 8}
    result = random_prune(program, 1)
    assert result.program.macs() < macs
    assert program.export().example_inputs is not None


class SeveralInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Linear(5, 8)
        self.embed, self.head = nn.Embedding(9, 8), nn.Linear(8, 4)

    def forward(
        self, x: Tensor, pair: dict[str, Any], ids: Tensor, *, mask: Tensor, scale: float = 1.0
    ) -> dict[str, Any]:
        y = self.a(x) + self.b(pair["y"])[:, :, None, None] + self.embed(ids)[:, :, None, None]
        y = (y * mask * scale).mean((2, 3)) + pair["table"].sum()
        return {"logits": self.head(y), "more": (y.sum(), y.argmax(1), 3, None)}


def test_inputs_and_outputs_of_every_kind() -> None:
    def inputs(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        pair = {"y": normal(batch, 5), "table": normal(7)}
        ids = torch.arange(batch) % 9
        return (normal(batch, 3, 4, 4), pair, ids), {"scale": 0.5, "mask": normal(batch, 1, 4, 4) > 0}

    network = redraw_(SeveralInputs().eval().double(), 0)
    args, kwargs = inputs(2)
    program = capture(network, args, kwargs)
    assert program.batch_is_dynamic
    for batch in (2, 5):
        args, kwargs = inputs(batch)
        assert equal(program(*args, **kwargs), network(*args, **kwargs))
    assert [tuple(x.shape) for x in program.example_inputs] == [(2, 3, 4, 4), (2, 5), (7,), (2,), (2, 1, 4, 4)]
    assert program.macs() == 8 * 3 * 16 + 8 * 5 + 8 * 4
    assert program.double().export() is not None


def test_variadic_inputs_have_a_dynamic_batch() -> None:
    class Variadic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 3)

        def forward(self, *xs: Tensor) -> Tensor:
            return self.a(xs[0] + xs[1])  # type: ignore[no-any-return]

    program = capture(Variadic(), (torch.ones(2, 4), torch.ones(2, 4)))
    assert program.batch_is_dynamic
    assert program(torch.ones(5, 4), torch.ones(5, 4)).shape == (5, 3)
    assert program.export() is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precisions(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).to(dtype)
    program = capture(redraw_(network, 0), (normal(2, 3, 4, 4).to(dtype),))
    assert program(normal(2, 3, 4, 4).to(dtype)).dtype == dtype
    for criterion in ("l1", "l2"):
        result = PruneFilters(ratio=0.5, criterion=criterion).run(program)
        assert {p.dtype for p in result.program.parameters().values()} == {dtype}
    check_exact(program)
    single = program.single()
    assert {p.dtype for p in single.parameters().values()} == {torch.float32}
    assert relative_error(single(*single.example_args), program(*program.example_args).float()) < 0.05
    assert single.single() is single


def test_double_widens_the_casts_of_the_network_too() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.a(x.float()).to(torch.float32) + torch.zeros(8, 1, 1) + torch.arange(8.0)[:, None, None]
        return s.b(y.type(torch.float32))  # type: ignore[no-any-return]

    network = Net(forward, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 2, 1))
    program = capture(redraw_(network, 0), (normal(2, 3, 4, 4).float(),))
    x = normal(2, 3, 4, 4)
    wide = program.double()
    assert wide(x).dtype == torch.float64
    assert relative_error(program(x.float()), wide(x)) > 1e-12
    assert program(x.float()).dtype == torch.float32  # and the program itself is as it was
    check_exact(program)


def test_masks() -> None:
    program = captured(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), normal(2, 8))
    sparse = Sparsify().run(program).program
    assert program.masks == {}
    assert sparse.masks["0.weight"].dtype == torch.bool
    with torch.no_grad():
        sparse.parameters()["0.weight"].add_(1)
    sparse.apply_masks()
    weight = sparse.parameters()["0.weight"]
    assert torch.equal(weight != 0, sparse.masks["0.weight"])
    # Pruning cuts the masks as it cuts the weights.
    result = random_prune(sparse, 0)
    assert result.plan is not None
    for name, mask in result.program.masks.items():
        assert mask.shape == result.program.parameters()[name].shape
        expected = sparse.masks[name]
        for dim, kept in result.plan.kept.get(name, {}).items():
            expected = expected.index_select(dim, torch.tensor(kept))
        assert torch.equal(mask, expected)


def test_files_are_reproducible_and_hold_everything(tmp_path: Path) -> None:
    network = redraw_(trainable(), 0)
    program = Sparsify().run(capture(network, (normal(2, 3, 6, 6).float(),))).program
    program.dropped, program.lost_in_capture = ("aux.weight",), ("block: stochastic_depth",)
    program.save(tmp_path / "a.pt2")
    Sparsify().run(capture(network, (normal(2, 3, 6, 6).float(),))).program.save(tmp_path / "plain.pt2")
    program.train().save(tmp_path / "b.pt2")
    assert (tmp_path / "a.pt2").read_bytes() == (tmp_path / "b.pt2").read_bytes()
    assert program.training
    loaded = Program.load(tmp_path / "a.pt2")
    assert not loaded.training
    assert equal(loaded.tensors(), program.tensors())
    assert list(loaded.tensors()) == list(program.tensors())
    assert equal(loaded.masks, program.masks)
    assert loaded.origin == fingerprint(program.tensors())
    for field in ("dropped", "lost_in_capture", "batch_is_dynamic", "constants"):
        assert getattr(loaded, field) == getattr(program, field)
    assert loaded.macs() == program.macs()
    x = normal(5, 3, 6, 6).float()
    assert torch.equal(loaded(x), program.eval()(x))
    with torch.random.fork_rng():
        outputs = []
        for either in (loaded, program):
            torch.manual_seed(0)
            outputs.append(either.train()(x))
    assert torch.equal(*outputs)
    loaded.save(tmp_path / "c.pt2")
    assert equal(Program.load(tmp_path / "c.pt2").tensors(), program.tensors())


def test_equal_captures_give_equal_bytes_without_a_trace_of_where_they_were_made(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        network = redraw_(trainable(), 0)
        capture(network, (normal(2, 3, 6, 6).float(),)).save(tmp_path / name / f"{name}.pt2")
    first = (tmp_path / "a" / "a.pt2").read_bytes()
    assert first == (tmp_path / "b" / "b.pt2").read_bytes()
    for trace in (b"test_program", b"site-packages", str(Path(__file__).parent).encode(), b"stack_trace"):
        assert trace not in first


def test_saving_writes_nothing_into_the_graph(tmp_path: Path) -> None:
    program = captured(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)), normal(2, 3, 6, 6))
    before = [repr(node.meta) for node in program.graph.nodes]
    program.save(tmp_path / "m.pt2")
    assert [repr(node.meta) for node in program.graph.nodes] == before


def test_other_dynamic_dimensions_survive_the_file(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    sizes = {0: Dim("n"), 2: Dim("h", min=4, max=64), 3: Dim("w", min=4, max=64)}
    program = capture(network, (normal(2, 3, 8, 9).float(),), dynamic_shapes=(sizes,))
    program.save(tmp_path / "a.pt2")
    loaded = Program.load(tmp_path / "a.pt2")
    example = loaded.export().graph.find_nodes(op="placeholder")[-1].meta["val"]
    assert [isinstance(size, torch.SymInt) for size in example.shape] == [True, False, True, True]
    assert program.macs() == loaded.macs() == 4 * 27 * 6 * 7 + 8


def test_foreign_exported_programs() -> None:
    network = redraw_(trainable().eval(), 0)
    x = normal(2, 3, 6, 6).float()
    exported = torch.export.export(network, (x,), dynamic_shapes=({0: Dim("anything")},))
    program = from_exported(exported)
    assert program.batch_is_dynamic
    assert program.origin == fingerprint(network.state_dict())
    assert torch.equal(program(x), network(x))
    assert not from_exported(torch.export.export(network, (x,))).batch_is_dynamic


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    for content in (None, b"", b"PK\x03\x04 truncated"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"model\.pt2"):
            Program.load(path)


def test_a_clone_shares_nothing() -> None:
    tied = nn.Linear(4, 4)
    program = Sparsify().run(captured(nn.Sequential(tied, nn.ReLU(), tied, nn.BatchNorm1d(4)), normal(2, 4))).program
    clone = program.clone()
    memory = {t.data_ptr() for t in (*program.tensors().values(), *program.masks.values(), *program.example_inputs)}
    assert not memory & {
        t.data_ptr() for t in (*clone.tensors().values(), *clone.masks.values(), *clone.example_inputs)
    }
    assert clone.graph is not program.graph
    names = {id(t) for t in clone.parameters().values()}
    assert len(names) == len({id(t) for t in program.parameters().values()})
    clone.train()
    assert not program.training
    assert "True" not in program.module.code.split("batch_norm")[1].split(")")[0]


class Branching(nn.Module):
    """A network whose training form is another one: `form` says how."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.body, self.head, self.aux = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.norm = nn.InstanceNorm1d(2, track_running_stats=True)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.3)

    def _drop_path(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1) > 0.5) if self.training else x

    def forward(self, x: Tensor) -> Any:
        y = self.body(x)
        if self.form == "stochastic depth":
            y = y + self._drop_path(y.relu())
        if self.form == "rrelu":
            y = F.rrelu(y, training=self.training)
        if self.form == "instance norm":
            y = y + self.norm(x.view(-1, 2, 2)).flatten(1).repeat(1, 2)
        if self.form == "attention dropout":
            y = y + self.attention(y, y, y, need_weights=False)[0]
        if self.form == "auxiliary head" and self.training:
            return self.head(y), self.aux(y)
        return self.head(y)


@pytest.mark.parametrize(
    ("form", "lost"),
    [
        ("plain", ""), ("stochastic depth", "rand"), ("rrelu", "rrelu"), ("instance norm", "norm: instance_norm"),
        ("attention dropout", "attention: scaled_dot_product_attention"), ("auxiliary head", "aux: linear"),
    ],
)  # fmt: skip
def test_what_an_eval_capture_loses(form: str, lost: str) -> None:
    program = capture(Branching(form), (torch.randn(2, 4),))
    assert bool(program.lost_in_capture) == bool(lost)
    assert lost in "; ".join(program.lost_in_capture)
    assert "aux.weight" in program.dropped
    assert "aux.weight" not in program.parameters()
    assert "head.weight" in program.parameters()


def test_cumulative_batch_statistics_are_reported() -> None:
    program = capture(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=None)), (torch.randn(2, 3),))
    assert program.lost_in_capture == ("1: cumulative average of batch statistics (momentum=None)",)
    assert capture(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), (torch.randn(2, 3),)).lost_in_capture == ()


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused_name, self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
            self.unused_name.weight = self.b.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.b(self.a(x)).relu()).mean((2, 3))  # type: ignore[no-any-return]

    program = captured(Tied(), normal(2, 3, 4, 4))
    parameters = program.parameters()
    assert parameters["unused_name.weight"] is parameters["b.weight"]
    assert program.parameter_count() == 3 * 8 + 8 + 64 + 8
    assert "unused_name.bias" in program.dropped
    pruned = program.clone()
    assert pruned.parameters()["unused_name.weight"] is pruned.parameters()["b.weight"]


def test_no_grad_regions_are_inlined() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.a(x)
        with torch.no_grad():
            z = y * 2
            with torch.enable_grad():
                z = z + y
            z = z.sigmoid()
        return s.b(y + z)  # type: ignore[no-any-return]

    program = captured(Net(forward, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 2, 1)), normal(2, 3, 4, 4))
    assert not any("wrap_with" in str(node.target) for node in program.graph.nodes)
    assert prunable(check_exact(program)) == {"a": 8}
    assert program.export() is not None


def _assign(y: Tensor) -> Tensor:
    y[:, 1:3] = y[:, 5:7] * 2
    return y


def _accumulate(y: Tensor) -> Tensor:
    y[:, :4] += 1
    return y


WRITES: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "relu": (F.relu_, True),
    "chain": (lambda y: y.relu_().add_(1).mul_(y).sub_(0.5), True),
    "dropout": (lambda y: F.dropout(y, 0.5, training=False, inplace=True).add_(1), True),
    "half a tensor": (lambda y: (y[:, :4].sigmoid_(), y)[1], False),
    "assignment": (_assign, False),
    "accumulation": (_accumulate, False),
    "view written later": (lambda y: (y.view(-1, 8, 16), y.mul_(2))[0].view_as(y) + y, False),
    "a cast that is none": (lambda y: y.type_as(y).add_(1), True),
    "a cast that is none, seen later": (lambda y: (y.type_as(y).add_(1), y)[1] * y, True),
    "a view that nothing else sees": (lambda y: y[:, :8].add_(1), True),
    "einsum that is a view": (lambda y: (torch.einsum("bchw->bhwc", y).add_(1), y)[1], False),
    "comparison": (lambda y: y.gt_(0.1), False),
}


@pytest.mark.parametrize("name", WRITES)
def test_in_place_operators(name: str) -> None:
    write, pure = WRITES[name]
    network = Net(
        lambda s, x: s.b(write(s.a(x)).sigmoid()), a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 2, 1)
    )  # fmt: skip
    program = captured(network, normal(2, 3, 4, 4))
    x = normal(3, 3, 4, 4, seed=1)
    assert torch.equal(program(x), network(x))
    mutating = [str(n.target) for n in program.graph.nodes if n.op == "call_function" and n.target._schema.is_mutable]
    assert (not mutating) == pure
    coupling = check_exact(program)
    assert ("a" in prunable(coupling)) == pure
    if not pure and name != "dropout":
        assert "in-place" in reasons(coupling, "a")


def test_constants_in_the_code() -> None:
    class WithConstants(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
            self.c = nn.Conv2d(6, 2, 1)
            self.plain = torch.ones(8, 1, 1)  # neither a parameter nor a buffer

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x) * self.plain
            return self.c(self.b(y) + torch.tensor([1.0, 2, 3, 4, 5, 6])[:, None, None])  # type: ignore[no-any-return]

    program = captured(WithConstants(), normal(2, 3, 4, 4))
    assert len(program.constants) == 2
    assert prunable(check_exact(program)) == {"a": 8, "b": 6}  # constants are cut with the channels
    plan = PruneFilters(ratio=0.5).run(program).plan
    assert plan is not None
    assert not set(plan.kept) & set(program.constants)  # and no plan names them


#: State outside of any network.
CALLS = count(1)


def test_networks_that_cannot_be_captured() -> None:
    x = normal(2, 3, 4, 4).float()
    with pytest.raises(UnsupportedModelError, match=r"doesn't run on inputs of shape \(2, 3, 4, 4\)"):
        capture(nn.Linear(7, 3), (x,))
    for name in ("code", "graph"):
        with pytest.raises(UnsupportedModelError, match=f"'{name}' .* torch.fx keeps for itself"):
            capture(Net(lambda s, x: s.get_submodule(name)(x), **{name: nn.Linear(4, 4)}), (x,))  # noqa: B023

    def autocast(s: Net, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return s.a(x)  # type: ignore[no-any-return]

    with pytest.raises(UnsupportedModelError, match="wrap_with_autocast"):
        capture(Net(autocast, a=nn.Conv2d(3, 4, 1)), (x,))

    def impure(s: Net, x: Tensor) -> Tensor:
        return x * next(CALLS)

    with pytest.raises(UnsupportedModelError, match="computes something else"):
        capture(Net(impure), (x,))


def branch(s: Net, x: Tensor) -> Tensor:
    y = s.a(x)
    return y if y.mean() > 0 else -y  # type: ignore[no-any-return]


def chosen_boxes(s: Net, x: Tensor) -> Tensor:
    best = torch.nonzero(s.a(x).flatten() > 0)
    return torch.stack([best[i] for i in range(len(best))])


def by_numpy(s: Net, x: Tensor) -> Tensor:
    return torch.from_numpy(s.a(x).detach().numpy())


@pytest.mark.parametrize(
    ("forward", "operator", "line"),
    [
        (branch, "aten.item", "return y if y.mean() > 0 else -y"),
        (chosen_boxes, "aten.nonzero", "return torch.stack([best[i] for i in range(len(best))])"),
        (by_numpy, "Tensor.numpy", "return torch.from_numpy(s.a(x).detach().numpy())"),
    ],
)
def test_what_torch_export_refuses_is_located(
    forward: Callable[[Net, Tensor], Tensor], operator: str, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnsupportedModelError, match="can't capture Net") as failure:
        capture(Net(forward, a=nn.Conv2d(3, 4, 1)), (normal(2, 3, 4, 4).float(),))
    assert f"at {operator}; " in failure.value.message
    assert f"{__file__}:" in failure.value.message
    assert f"in {forward.__name__}()" in failure.value.message
    assert line in failure.value.message
    assert "backbone and head" in (failure.value.hint or "")
    assert capfd.readouterr() == ("", "")


def test_seeded_random_numbers_in_inference_are_no_difference() -> None:
    program = capture(Net(lambda s, x: s.a(x) + torch.rand(4), a=nn.Linear(3, 4)), (torch.ones(2, 3),))
    assert program.batch_is_dynamic
