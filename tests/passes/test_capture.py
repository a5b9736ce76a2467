"""What capture leaves of the network, and how far the batch of a captured network varies."""

import copy
import threading
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import Dim

from prunec.passes.coupling import analyse
from prunec.passes.dimensions import input_tensors
from prunec.passes.errors import UnsupportedModelError
from prunec.passes.frontend import capture
from prunec.passes.graphs import calls
from prunec.passes.network_inputs import varying_sizes
from prunec.passes.program import Program
from prunec.runtime.numerics import batch_sizes
from prunec.runtime.onnx_export import export_onnx
from tests.passes.checks import Net, normal, prunable

#: Every network is captured and written here, also one that was before.
pytestmark = pytest.mark.usefixtures("exported_anew")


def at_batch(program: Program, samples: int) -> tuple[Any, ...]:
    """Positional inputs with so many samples."""
    return tuple(normal(samples, *x.shape[1:], seed=samples).float() for x in program.example_inputs)


class Remembering(nn.Module):
    """A head that remembers the last shape, counts its calls and keeps a grid, as detectors' heads do."""

    shape: Any = None
    grid: Any = None
    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.calls += 1
        self.seen += 1
        if self.shape != y.shape:
            self.grid, self.shape = torch.arange(y.shape[-1], dtype=x.dtype), y.shape
        return y + self.grid  # type: ignore[no-any-return]


def test_what_a_forward_pass_remembers_stays_out_of_the_network_and_leaves_the_batch_free() -> None:
    network = Remembering()
    state = copy.deepcopy(network.state_dict())
    program = capture(network, (normal(2, 3, 10, 10).float(),))
    assert (network.shape, network.grid, network.calls) == (None, None, 0)
    assert network.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert program.batch_is_dynamic
    assert program.batch_bounds == (1, None)
    assert program.capture_notes == ()
    x = normal(5, 3, 10, 10).float()
    assert torch.equal(program(x), copy.deepcopy(network)(x))


def test_a_program_shares_no_memory_with_its_network() -> None:
    network = Remembering()
    program = capture(network, (normal(2, 3, 10, 10).float(),))
    theirs = {tensor.data_ptr() for tensor in network.state_dict().values()}
    assert not theirs & {tensor.data_ptr() for tensor in program.tensors().values()}


def test_a_network_that_cannot_be_copied_is_run_itself_which_is_said() -> None:
    network = Net(lambda s, x: s.a(x), a=nn.Linear(6, 4))
    network.lock = threading.Lock()
    program = capture(network, (normal(2, 6).float(),))
    assert program.batch_is_dynamic
    assert "can't be copied (TypeError: " in program.capture_notes[0]
    assert network.training
    weight = program.parameters()["a.weight"]
    assert weight.data_ptr() != network.a.weight.data_ptr()


class CopiedAsItself(nn.Linear):
    """A layer that copies share, and that remembers its input's shape."""

    seen: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "CopiedAsItself":
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.shape
        return super().forward(x)


def test_a_network_whose_copy_shares_a_layer_is_run_itself_which_is_said() -> None:
    network = nn.Sequential(CopiedAsItself(6, 8), nn.ReLU(), nn.Linear(8, 4))
    program = capture(network, (normal(2, 6).float(),))
    assert "can't be copied (TypeError: the copy of a CopiedAsItself" in program.capture_notes[0]
    assert program.parameters()["0.weight"].data_ptr() != network[0].weight.data_ptr()


def called_by_a_function(network: nn.Module) -> None:
    network.run = lambda x: network[0](x * 1)
    network.forward = lambda x: network[2](network[1](network.run(x)))


def forward_replaced(network: nn.Module) -> None:
    forward = network.forward
    network.forward = lambda x, factor=2: forward(x) * factor


def method_replaced(network: nn.Module) -> None:
    forward = network.forward

    def doubled(self: nn.Module, x: Tensor) -> Tensor:
        return forward(x) * 2  # type: ignore[no-any-return]

    network.forward = MethodType(doubled, network)


def called_in_part(network: nn.Module) -> None:
    network.forward = partial(lambda layers, x: layers[2](layers[1](layers[0](x))), network)


def functions_in_a_list(network: nn.Module) -> None:
    network.steps = [lambda x: network[0](x * 1), torch.relu, lambda x: network[2](x * 1)]
    network.forward = lambda x: reduce(lambda y, step: step(y), network.steps, x)


def seen_by_hooks(network: nn.Module) -> None:
    network.seen = []
    network[1].register_forward_hook(lambda layer, inputs, output: network.seen.append(output))
    network.register_forward_hook(lambda layer, inputs, output: output + network.seen.pop().sum(1, keepdim=True))


@pytest.mark.parametrize(
    "change",
    [called_by_a_function, forward_replaced, method_replaced, called_in_part, functions_in_a_list, seen_by_hooks],
)
def test_functions_that_a_network_holds_run_the_copy(change: Callable[[nn.Module], None]) -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    change(network)
    program = capture(network, (normal(2, 6).float(),))
    assert list(program.tensors()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert program.capture_notes == ()
    assert getattr(network, "seen", []) == []
    assert prunable(analyse(program)) == {"0": 8}
    x = normal(3, 6).float()
    assert torch.allclose(program(x), network(x), atol=1e-6)


def test_tensors_that_were_computed_can_be_copied() -> None:
    with pytest.warns(FutureWarning):
        normed = torch.nn.utils.weight_norm(nn.Linear(6, 4))  # type: ignore[no-untyped-call]
    normed(normal(2, 6).float())  # leaves a weight with a history
    assert not normed.weight.is_leaf
    assert capture(nn.Sequential(normed), (normal(2, 6).float(),)).capture_notes == ()


def wrapped_in(wrapper: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return wrapper(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)))


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile()
    return module


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch.compile itself
@pytest.mark.parametrize("wrapper", [nn.DataParallel, torch.compile, compiled_in_place])
def test_wrappers_are_taken_off(wrapper: Callable[[nn.Module], nn.Module]) -> None:
    network = wrapped_in(wrapper)
    program = capture(network, (normal(2, 6).float(),))
    assert list(program.parameters()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert program.batch_is_dynamic


class Wrapper(nn.Module):
    """Passes on whatever it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Scaled()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 4)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return self.a(x if scale is None else x * scale)  # type: ignore[no-any-return]


@pytest.mark.parametrize("network", [Scaled, Wrapper])
@pytest.mark.parametrize("inputs", ["x", "x scale", "x, scale", "scale, x", ", x"])
def test_inputs_by_position_and_by_name(network: type[nn.Module], inputs: str) -> None:
    by_position, _, by_name = inputs.partition(",")
    args = tuple(normal(2, 6, seed=len(name)).float() for name in by_position.split())
    kwargs = {name: normal(2, 6, seed=len(name)).float() for name in by_name.split()}
    if inputs == "scale, x":
        args, kwargs = (), {"scale": args[0], **kwargs}
    module = network()
    program = capture(module, args, kwargs)
    assert program.batch_is_dynamic
    more = [torch.cat([x, x[:1]]) for x in input_tensors((args, kwargs))]
    larger = tuple(more[: len(args)]), dict(zip(kwargs, more[len(args) :], strict=True))
    assert torch.equal(program(*larger[0], **larger[1]), module.eval()(*larger[0], **larger[1]))
    assert program.export() is not None


def up_to_63(s: Net, x: Tensor) -> Tensor:
    y = s.a(x)
    if y.shape[0] >= 64:
        y = y.contiguous()
    return y  # type: ignore[no-any-return]


def by_sample(s: Net, x: Tensor) -> Tensor:
    return torch.cat([s.a(x[i : i + 1]) for i in range(x.shape[0])])


def in_pairs(s: Net, x: Tensor) -> Tensor:
    first, second = s.a(x).chunk(2, 0)
    return first + second  # type: ignore[no-any-return]


def mean_over_batch(s: Net, x: Tensor) -> Tensor:
    return s.a(x) / float(len(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("samples", [1, 4])
def test_a_batch_within_bounds(samples: int) -> None:
    program = capture(Net(up_to_63, a=nn.Linear(6, 4)), (normal(samples, 6).float(),))
    assert program.batch_is_dynamic
    assert program.batch_bounds == (1, 63)
    assert batch_sizes(program, (2, 100)) == (2, 63)
    note = program.capture_notes[0]
    assert note.startswith("The batch may have 1 to 63 samples. ")
    assert f"{__file__}:" in note
    assert "in up_to_63(): 'if y.shape[0] >= 64:'" in note
    assert program.export() is not None
    assert program(*at_batch(program, 7)).shape == (7, 4)


def up_to_2(s: Net, x: Tensor) -> Tensor:
    if x.shape[0] > 2:
        raise ValueError("too many")
    return s.a(x)  # type: ignore[no-any-return]


def other_than_5(s: Net, x: Tensor) -> Tensor:
    return s.a(x) * (3 if x.shape[0] == 5 else 2)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("forward", "line"), [(up_to_2, "if x.shape[0] > 2:"), (other_than_5, "x.shape[0] == 5")])
def test_conditions_that_no_bounds_tell_are_said_with_the_line(forward: Callable[..., Tensor], line: str) -> None:
    program = capture(Net(forward, a=nn.Linear(6, 4)), (normal(2, 6).float(),))
    (note,) = program.capture_notes
    assert note.startswith("The batch stays at 2, ")
    assert f"in {forward.__name__}()" in note
    assert line in note


@pytest.mark.parametrize(
    ("forward", "line"),
    [
        (by_sample, "for i in range(x.shape[0])"), (in_pairs, "return first + second"),
        (mean_over_batch, "float(len(x))"),
    ],
)  # fmt: skip
def test_what_fixes_a_batch_is_said_with_the_line(forward: Callable[[Net, Tensor], Tensor], line: str) -> None:
    program = capture(Net(forward, a=nn.Linear(6, 4)), (normal(4, 6).float(),))
    assert not program.batch_is_dynamic
    (note,) = program.capture_notes
    assert note.startswith("The batch stays at 4, ")
    assert f"in {forward.__name__}()" in note
    assert line in note


def test_a_network_that_loops_over_one_sample_stays_at_one() -> None:
    program = capture(Net(by_sample, a=nn.Linear(6, 4)), (normal(1, 6).float(),))
    assert [len(x) for x in program.example_inputs] == [1]


def test_a_network_for_one_sample_is_captured_from_more() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        return s.a(x.view(1, -1))  # type: ignore[no-any-return]

    for samples in (1, 2, 3):
        program = capture(Net(forward, a=nn.Linear(6, 4)), (normal(samples, 2, 3).float(),))
        assert [len(x) for x in program.example_inputs] == [1]
        assert f"with {max(samples, 2)} samples it fails (mat1 and mat2" in program.capture_notes[0]


def test_one_sample_for_which_the_network_does_something_else() -> None:
    program = capture(Net(lambda s, x: s.a(x).squeeze(), a=nn.Linear(6, 4)), (normal(3, 6).float(),))
    assert program.batch_is_dynamic
    assert "something else with one sample" in program.capture_notes[0]


def test_automatic_dimensions() -> None:
    program = capture(Net(up_to_63, a=nn.Linear(6, 4)), (normal(2, 6).float(),), dynamic_shapes=({0: Dim.AUTO},))
    assert program.batch_bounds == (1, 63)
    assert program.export() is not None
    assert program(*at_batch(program, 7)).shape == (7, 4)
    fixed = capture(Net(by_sample, a=nn.Linear(6, 4)), (normal(2, 6).float(),), dynamic_shapes=({0: Dim.AUTO},))
    assert not fixed.batch_is_dynamic


class Summed(nn.Module):
    def forward(self, x: Tensor, *more: Tensor, **named: Tensor) -> Tensor:
        x = sum((place * each.relu() for place, each in enumerate(more, 2)), x)
        return sum((ord(name) * named[name].relu() for name in sorted(named)), x)


@pytest.mark.parametrize("as_sequence", [False, True])
@pytest.mark.parametrize("names", ["b c", "c b", ""])
def test_dimensions_of_inputs_that_the_code_does_not_name(names: str, as_sequence: bool) -> None:
    tokens = Dim("tokens", min=3, max=12)
    args, kwargs = (
        tuple(normal(2, 6, seed=n).float() for n in range(3)),
        {n: normal(2, 6, seed=ord(n)).float() for n in names.split()},
    )
    axes = {1: tokens}
    dims: Any = {"x": axes, "more": (axes, axes)} | ({"named": dict.fromkeys(kwargs, axes)} if kwargs else {})
    program = capture(Summed(), args, kwargs, tuple(dims.values()) if as_sequence else dims)
    sizes = [(size.smallest, size.largest) for each in program.inputs for size in each.varying.values()]
    assert len(sizes) == 3 + len(kwargs) and set(sizes) == {(3, 12)}
    assert len(varying_sizes(program.inputs)) == 1
    more, named = tuple(x[:, :5] for x in args), {name: x[:, :5] for name, x in kwargs.items()}
    assert torch.equal(program(*more, **named), Summed()(*more, **named))


def test_dimensions_that_the_network_refuses() -> None:
    with pytest.raises(UnsupportedModelError, match="batch"):
        capture(Net(by_sample, a=nn.Linear(6, 4)), (normal(2, 6).float(),), dynamic_shapes=({0: Dim("batch")},))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_regions_without_autocast_are_inlined(device: str) -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        with torch.autocast(device, enabled=False):
            y = s.a(x).float()
        return y.relu()

    network = Net(forward, a=nn.Linear(6, 4))
    program = capture(network, (normal(2, 6).float(),))
    assert not any("autocast" in str(node.target) for node in program.graph.nodes)
    x = normal(3, 6).float()
    assert torch.equal(program(x), network(x))


class Attending(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.a, self.rate = nn.Linear(6, 4), rate

    def forward(self, x: Tensor) -> Tensor:
        q = self.a(x)[:, None]
        rate = self.rate if self.training else 0.0
        if self.training:
            q = nn.functional.dropout(q, self.rate)
        return nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=rate).view(-1, 4)


@pytest.mark.parametrize(("rate", "lost"), [(0, False), (0.0, False), (0.5, True)])
def test_dropout_that_is_never_on_is_not_lost(rate: float, lost: bool) -> None:
    assert bool(capture(Attending(rate), (normal(2, 6).float(),)).lost_in_capture) == lost


def test_checks_of_values_are_left_out(tmp_path: Path) -> None:
    """No engine knows them; where a size depends on the number, torch.export goes by its checks."""

    class Checked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(16, 8), nn.Linear(8, 3)

        def forward(self, ids: Tensor) -> Tensor:
            torch._check_tensor_all(ids < 16)
            torch._check(ids.max().item() >= 0)
            return self.head(self.embed(ids).mean(1))  # type: ignore[no-any-return]

    class Sized(Checked):
        def forward(self, ids: Tensor) -> Tensor:
            count = ids.min().item()
            torch._check(count >= 2)
            torch._check(count <= 4)
            return self.head(self.embed(ids)[:, :count].mean(1))  # type: ignore[no-any-return, misc]

    ids = torch.tensor([[2, 3, 5, 15], [7, 2, 2, 9]])
    program = capture(Checked(), (ids,))
    assert not list(calls(program.graph, "item", "_assert_scalar", "_is_all_true"))
    assert program.batch_is_dynamic
    export_onnx(program, tmp_path / "model.onnx")
    sized = capture(Sized(), (ids,))
    assert list(calls(sized.graph, "item")) and list(calls(sized.graph, "_assert_scalar"))


def test_what_is_lost_of_a_region_is_what_it_computes() -> None:
    normed = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)))
    lost = capture(normed, (normal(2, 6).float(),)).lost_in_capture
    assert any("mv" in entry for entry in lost)
    assert not any("getitem" in entry or "wrap_with" in entry for entry in lost)


class Ungraded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.training):
            first, second = x.sin().chunk(2, 1)
        return first + second


def test_a_region_that_computes_the_same_in_training_loses_nothing() -> None:
    assert capture(nn.Sequential(nn.Linear(6, 4), Ungraded()), (normal(2, 6).float(),)).lost_in_capture == ()


class OverAllAxes(nn.Module):
    """Takes the numbers of the axes from a range, and leaves it, as code written for TorchScript does."""

    def __init__(self, as_type: torch.dtype = torch.int64, written: bool = False) -> None:
        super().__init__()
        self.linear, self.as_type, self.written = nn.Linear(6, 4), as_type, written

    def forward(self, x: Tensor) -> Tensor:
        axes: Any = torch.arange(1, x.ndim, dtype=self.as_type)
        axes = axes.sub_(1).tolist() if self.written else axes.tolist()
        wrong = torch.arange(0, 4, 2) + 1
        return self.linear(x - x.mean(axes, keepdim=True) + wrong.sum())  # type: ignore[no-any-return]


def test_ranges_that_the_code_reads() -> None:
    original = torch.arange, FakeTensor.tolist
    program = capture(OverAllAxes(), (normal(2, 3, 6).float(),))
    assert program.batch_is_dynamic
    assert not list(calls(program.graph, "item"))
    for other in (OverAllAxes(torch.float32), OverAllAxes(written=True)):
        with pytest.raises(UnsupportedModelError):
            capture(other, (normal(2, 3, 6).float(),))
    assert (torch.arange, FakeTensor.tolist) == original
