"""Networks whose code turns the batch into a whole number: which of them take any batch, and what stays as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunec.passes.frontend import capture
from prunec.passes.graphs import calls, operator_name
from prunec.passes.module_copy import Copies
from prunec.passes.program import Program, program_from
from prunec.passes.torch_export import export_as_is
from prunec.runtime.numerics import onnx_vs_torch
from prunec.runtime.onnx_export import export_onnx
from tests.passes.checks import Net, captured, check_exact, check_module, normal, prunable, random_prune

#: Every network is captured and written here, also one that was before.
pytestmark = pytest.mark.usefixtures("exported_anew")

MADE_TO_VARY = "The batch was made to vary by comparing captures with 2 and 3 samples; with 5 samples "


def length(s: Net, x: Tensor) -> Tensor:
    return s.b(s.a(x).relu().reshape(len(x), -1))  # type: ignore[no-any-return]


def divided(s: Net, x: Tensor) -> Tensor:
    windows = s.a(x).reshape(len(x) * 4, -1).relu()
    return s.b(windows.reshape(int(windows.shape[0] / (4 * 6 / 2 / 3)), -1))  # type: ignore[no-any-return]


def left_over(s: Net, x: Tensor) -> Tensor:
    return s.b(s.a(x).relu().reshape(-1, int(x.shape[0] * 1.0), 32).flatten(0, 1))  # type: ignore[no-any-return]


def more_than_the_batch(s: Net, x: Tensor) -> Tensor:
    first = x.new_zeros(2 * len(x) + 1, 1).flatten()[: len(x)]
    return s.b(s.a(x).relu().flatten(1)) + first[:, None]  # type: ignore[no-any-return]


def expanded(s: Net, x: Tensor) -> Tensor:
    y = s.a(x).relu().flatten(1)
    return s.b(y + s.token.expand(len(y), -1))  # type: ignore[no-any-return]


def by_place(s: Net, x: Tensor) -> Tensor:
    y = s.b(s.a(x).relu().flatten(1))
    return y[torch.arange(len(y)).flip(0)] + torch.arange(len(y))[:, None]  # type: ignore[no-any-return]


def masked(s: Net, x: Tensor) -> Tensor:
    mask = torch.ones(len(x), 4, dtype=torch.bool)
    mask[:, 2] = False
    return s.b(s.a(x).relu().flatten(1)).masked_fill(~mask, -1.0)  # type: ignore[no-any-return]


def without_gradients(s: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        shift = torch.full((len(x), 1), 0.5, dtype=x.dtype)
    return s.b(s.a(x).relu().flatten(1)) + shift  # type: ignore[no-any-return]


def twos_of_other_kinds(s: Net, x: Tensor) -> Tensor:
    y = s.a(x).relu().reshape(len(x), 8, 2, 2).sum(2, keepdim=True).expand(-1, -1, 2, 2)
    return s.b(y.reshape(len(x), -1)) * 2  # type: ignore[no-any-return]


def named_in_vain(s: Net, x: Tensor) -> Tensor:
    sizes = [len(image.unbind(0)[0]) for image in x]  # a loop whose tensors nothing reads
    return s.b(s.a(x).relu().reshape(len(sizes), -1))  # type: ignore[no-any-return]


VARYING = (
    length, divided, left_over, more_than_the_batch, expanded, by_place, masked, without_gradients,
    twos_of_other_kinds, named_in_vain,
)  # fmt: skip


def network(forward: Callable[[Net, Tensor], Any]) -> Net:
    return Net(forward, a=nn.Conv2d(3, 8, 1), b=nn.Linear(32, 4), token=torch.linspace(0, 1, 32))


def of_network(forward: Callable[[Net, Tensor], Any], samples: int = 2) -> tuple[Net, Program]:
    net = network(forward)
    return net, captured(net, normal(samples, 3, 2, 2))


@pytest.mark.parametrize("forward", VARYING)
def test_whole_numbers_that_depend_on_the_batch(forward: Callable[[Net, Tensor], Any]) -> None:
    net, program = of_network(forward)
    assert program.batch_is_dynamic
    assert program.batch_bounds == (1, None)
    (note,) = program.capture_notes
    assert note.startswith(MADE_TO_VARY)
    assert f"in {forward.__name__}()" in note
    for samples in (1, 2, 4, 7):
        x = normal(samples, 3, 2, 2, seed=samples)
        torch.testing.assert_close(program(x), net(x))


@pytest.mark.parametrize("forward", VARYING)
def test_they_are_pruned_like_others(forward: Callable[[Net, Tensor], Any]) -> None:
    net, program = of_network(forward)
    coupling = check_exact(program)
    if forward in (length, without_gradients):
        assert prunable(coupling) == {"a": 8}
        check_module(net, random_prune(program, 1), (normal(3, 3, 2, 2),))


@pytest.mark.parametrize("forward", [divided, masked])
def test_their_files_take_any_batch(forward: Callable[[Net, Tensor], Any], tmp_path: Path) -> None:
    program = of_network(forward)[1].single()
    program.save(tmp_path / "m.pt2")
    assert Program.load(tmp_path / "m.pt2").batch_is_dynamic
    export_onnx(program, tmp_path / "m.onnx")
    assert onnx_vs_torch(program, tmp_path / "m.onnx") < 1e-4


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_the_example_may_have_any_batch(samples: int) -> None:
    net, program = of_network(length, samples)
    assert program.batch_is_dynamic
    x = normal(3, 3, 2, 2)
    torch.testing.assert_close(program(x), net(x))


def looped(s: Net, x: Tensor) -> Tensor:
    return torch.cat([s.b(s.a(x[i : i + 1]).flatten(1)) for i in range(len(x))])


def squared(s: Net, x: Tensor) -> Tensor:
    return s.b(s.a(x).flatten(1)) + torch.ones(len(x) ** 2).sum()  # type: ignore[no-any-return]


def mean(s: Net, x: Tensor) -> Tensor:
    return s.b(s.a(x).flatten(1)) / float(len(x))  # type: ignore[no-any-return]


def constants(s: Net, x: Tensor) -> Tensor:
    return s.b(s.a(x).flatten(1)) * torch.tensor([len(x) / 2.0])  # type: ignore[no-any-return]


def few_samples(s: Net, x: Tensor) -> Tensor:
    y = s.b(s.a(x).flatten(1).reshape(len(x), -1))
    return y if len(x) < 4 else -y


def turned(s: Net, x: Tensor) -> Tensor:
    y = s.b(s.a(x).flatten(1)).reshape(len(x), -1)
    return y if len(x) == 2 else y.flip(0).contiguous()


@pytest.mark.parametrize("forward", [looped, squared, mean, constants, few_samples, turned])
def test_what_is_no_multiple_of_the_batch_fixes_it_with_the_reason(forward: Callable[[Net, Tensor], Any]) -> None:
    net, program = of_network(forward)
    assert not program.batch_is_dynamic
    (note,) = program.capture_notes
    assert note.startswith("The batch stays at 2, with which the network was captured. What fixes it: ")
    assert f"in {forward.__name__}()" in note
    x = normal(2, 3, 2, 2, seed=1)
    torch.testing.assert_close(program(x), net(x))


def test_samples_that_are_copies_of_one_are_told_apart() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.b(s.a(x).flatten(1)).reshape(len(x), -1)
        return y[torch.arange(len(x)) % 3]  # type: ignore[no-any-return]

    def other(s: Net, x: Tensor) -> Tensor:
        y = s.b(s.a(x).flatten(1)).reshape(len(x), -1)
        return y[torch.arange(len(x)) // int(1 + (len(x) > 3))]  # type: ignore[no-any-return]

    assert of_network(forward, samples=1)[1].batch_is_dynamic
    assert not of_network(other, samples=1)[1].batch_is_dynamic


def test_one_sample_for_which_the_network_does_something_else() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.b(s.a(x).flatten(1)).reshape(len(x), -1)
        return -y if len(x) == 1 else y  # type: ignore[no-any-return]

    program = of_network(forward)[1]
    assert program.batch_is_dynamic
    assert program.capture_notes[0].startswith(MADE_TO_VARY)
    assert "something else with one sample" in program.capture_notes[1]


class Block(nn.Module):
    def __init__(self, tied: nn.Linear) -> None:
        super().__init__()
        self.conv, self.norm, self.tied = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), tied
        self.register_buffer("table", torch.linspace(0, 1, 8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x)).relu().mean((2, 3)) + self.table
        return self.tied(y.view(len(x), -1)) + torch.tensor([1.0] * 4)  # type: ignore[no-any-return]


class Blocks(nn.Module):
    """Tied layers, inputs by name and within others, some without a batch; outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.tied, self.unused = nn.Linear(8, 4), nn.Linear(2, 2)
        self.first, self.second = Block(self.tied), Block(self.tied)

    def forward(self, x: Tensor, more: dict[str, Any], *, scale: Tensor, flag: bool = True) -> dict[str, Any]:
        y = self.first(x) + self.second(x) * scale + more["table"]
        return {"y": y + more["y"] if flag else y, "both": (more["y"] * 2, None), "size": 3}


def blocks(samples: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    more = {"table": normal(4).float(), "y": normal(samples, 4).float()}
    return (normal(samples, 3, 2, 2).float(), more), {"scale": normal(samples, 1).float(), "flag": True}


def test_inputs_tensors_and_layers_are_those_of_the_network() -> None:
    net = Blocks().eval()
    inputs = blocks(2)
    program = capture(net, *inputs)
    assert program.capture_notes[0].startswith(MADE_TO_VARY)
    given = blocks(5)
    actual, expected = program(*given[0], **given[1]), net(*given[0], **given[1])
    torch.testing.assert_close(actual, expected)
    fixed = program_from(export_as_is(Copies(net).to_trace(*inputs), inputs), inputs)
    assert program.inputs == fixed.inputs
    assert [each.has_batch for each in program.inputs] == [True, False, True, True]
    assert list(program.tensors()) == list(fixed.tensors())
    assert (program.dropped, program.constants) == (fixed.dropped, fixed.constants)
    assert [layer.name for layer in program.layers()] == ["first.conv", "tied", "second.conv", "tied"]
    assert places(program) == places(fixed)


def places(program: Program) -> list[tuple[str, str, str]]:
    """Operators with the paths of their modules and the lines of the network's code."""
    return [
        (node.name, node.meta["module"], node.meta["trace"])
        for node in calls(program.graph)
        if operator_name(node.target) != "sym_size"
    ]


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            shift = torch.full((len(x), 1), 0.5)
        for sample in x:  # which nothing reads
            sample.sum()
        y = self.a(x) + shift
        return y.sigmoid() if self.training else y  # type: ignore[no-any-return]


def test_what_training_does_besides_is_told_as_of_others() -> None:
    program = capture(Noisy(), (normal(2, 6).float(),))
    assert program.capture_notes[0].startswith(MADE_TO_VARY)
    assert program.lost_in_capture == ("forward: sigmoid",)


def test_networks_whose_batch_varies_anyway_are_exported_as_often_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    export = torch.export.export

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return export(*args, **kwargs)

    monkeypatch.setattr(torch.export, "export", counting)
    capture(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), (normal(2, 6).float(),))
    assert len(calls) == 1
    calls.clear()
    capture(network(length), (normal(2, 3, 2, 2).float(),))
    assert len(calls) == 4  # one that fails, two that are compared, one of what was made of them
