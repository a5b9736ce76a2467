"""What the suite keeps of captures and files is what would be made anew; what differs isn't taken for equal."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunec.passes import Program, capture
from prunec.passes.errors import UnsupportedModelError
from prunec.runtime.onnx_export import export_onnx, save_with_onnx
from tests import kept_results
from tests.content import of_program

FACTORS = {"all": 2.0}
INPUT = torch.randn(2, 3, 8, 8)


def shifted(x: Tensor) -> Tensor:
    return x + FACTORS["all"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.register_buffer("scale", torch.rand(8) + 1)
        self.steps, self.options = 1, {"relu": True}

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).mean((2, 3)) * self.scale
        for _ in range(self.steps):
            x = self.again(self.head(x))
        return shifted(x.relu() if self.options["relu"] else x)


def captured(network: nn.Module) -> Program:
    return capture(network.eval(), (INPUT,))


def _tied(network: Any) -> None:
    network.again.weight = network.head.weight


def _frozen(network: Any) -> None:
    network.head.weight.requires_grad_(False)


def _hooked(network: Any) -> None:
    network.head.register_forward_hook(lambda module, inputs, output: output * 2)


CHANGES: dict[str, Callable[[Any], object]] = {
    "number": lambda network: setattr(network, "steps", 2),
    "option": lambda network: network.options.update(relu=False),
    "width": lambda network: setattr(network, "conv", nn.Conv2d(3, 8, 5)),
    "layer": lambda network: setattr(network, "norm", nn.Identity()),
    "epsilon": lambda network: setattr(network.norm, "eps", 0.1),
    "tied": _tied,
    "frozen": _frozen,
    "hook": _hooked,
    "method": lambda network: setattr(network.head, "forward", lambda x: x - 1),
}


def exports(work: Callable[[], object]) -> int:
    """How often torch exports while something is done."""
    export, calls = torch.export.export, []

    def counted(*inputs: Any, **options: Any) -> Any:
        calls.append(inputs)
        return export(*inputs, **options)

    torch.export.export = counted
    try:
        work()
    finally:
        torch.export.export = export
    return len(calls)


def test_the_same_network_with_other_weights_is_captured_as_it_would_be_anew(tmp_path: Path) -> None:
    captured(Net())
    for _ in range(2):
        network = Net()
        kept = captured(network)
        assert exports(lambda network=network: captured(network)) == 0
        assert exports(lambda kept=kept: [kept.save(tmp_path / "m"), kept.save(tmp_path / "m")]) < 2
        with kept_results.anew():
            new = captured(network)
            new.save(tmp_path / "new.pt2")
            export_onnx(new, tmp_path / "new.onnx")
        assert of_program(kept) == of_program(new)
        assert torch.equal(kept(INPUT), network(INPUT))
        assert not {id(tensor) for tensor in kept.tensors().values()} & {id(t) for t in network.state_dict().values()}
        for name in ("first", "second"):
            kept.save(tmp_path / f"{name}.pt2")
            export_onnx(kept, tmp_path / f"{name}.onnx")
        for kind in ("pt2", "onnx"):
            files = {(tmp_path / f"{name}.{kind}").read_bytes() for name in ("new", "first", "second")}
            assert len(files) == 1, kind


def test_files_written_together_are_those_written_one_by_one(tmp_path: Path) -> None:
    program = captured(Net())
    for name in ("made", "kept"):
        save_with_onnx(program, tmp_path / f"{name}.pt2", tmp_path / f"{name}.onnx")
    assert exports(lambda: save_with_onnx(program, tmp_path / "kept.pt2", tmp_path / "kept.onnx")) == 0
    assert exports(lambda: [program.save(tmp_path / "one.pt2"), export_onnx(program, tmp_path / "one.onnx")]) == 0
    with kept_results.anew():
        program.save(path=tmp_path / "new.pt2")
        export_onnx(program, path=tmp_path / "new.onnx")
    for kind in ("pt2", "onnx"):
        assert len({(tmp_path / f"{name}.{kind}").read_bytes() for name in ("made", "kept", "one", "new")}) == 1, kind


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_captured_anew(change: str) -> None:
    captured(Net())
    network = Net()
    CHANGES[change](network)
    kept = captured(network)
    with kept_results.anew():
        assert of_program(kept) == of_program(captured(network))
    torch.testing.assert_close(kept(INPUT), network(INPUT))


class Config:
    factor = 1.0


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * FACTORS["all"]


class Calling(nn.Module):
    """A network that gives what a function makes of a layer's output."""

    def __init__(self, function: Callable[[Tensor], Tensor], **attributes: Any) -> None:
        super().__init__()
        self.body, self.function = nn.Linear(8, 8), function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.body(x))


def _by_global(value: float) -> nn.Module:
    FACTORS["all"] = value
    return Calling(shifted)


def _by_class(value: float) -> nn.Module:
    Config.factor = value
    return Calling(lambda x: x * Config.factor)


def _by_autograd(value: float) -> nn.Module:
    FACTORS["all"] = value
    return Calling(Scaled.apply)


def _by_attribute(value: float) -> nn.Module:
    def function(x: Tensor) -> Tensor:
        return x * function.factor  # type: ignore[attr-defined]

    function.factor = value  # type: ignore[attr-defined]
    return Calling(function)


def _by_bound(value: float) -> nn.Module:
    look_up = {"all": value}.get
    return Calling(lambda x: x * look_up("all"))


def _by_disguise(value: float) -> nn.Module:
    FACTORS["all"] = value
    return Calling(functools.wraps(torch.nn.functional.relu)(lambda x: x * FACTORS["all"]))


def _by_globals(value: float) -> nn.Module:
    FACTORS["all"] = value
    return Calling(lambda x: x * globals()["FACTORS"]["all"])


def _by_weights_in_a_list(value: float) -> nn.Module:
    network = Calling(lambda x: x @ network.weights[0])
    network.weights = [network.body.weight]  # type: ignore[assignment]
    network.body.weight.data.fill_(value)
    return network


def _by_layers_in_a_list(value: float) -> nn.Module:
    layers = [nn.Linear(8, 8)]
    layers[0].weight.data.fill_(value)
    return Calling(lambda x: layers[0](x) * 1)


def _by_sign_of_zero(value: float) -> nn.Module:
    network = Calling(lambda x: torch.copysign(x, torch.full_like(x, network.zero)), zero=0.0 if value == 1 else -0.0)
    return network


def _by_slice(value: float) -> nn.Module:
    network = Calling(lambda x: x[:, network.part], part=slice(int(value)))
    return network


def _by_an_empty_cell(value: float) -> nn.Module:
    def function(x: Tensor) -> Tensor:
        return x * value if len(x.shape) > 1 else never

    if value == 0:
        never = torch.zeros(1)
    return Calling(function)


def _by_one_sample(value: float) -> nn.Module:
    network = Calling(
        lambda x: x + network.shift if len(x) == 1 else x, shift=nn.Parameter(torch.full((8,), value - 1))
    )
    return network


def _deep(value: float) -> nn.Module:
    network: nn.Module = nn.Linear(8, 8)
    for _ in range(100):
        network = nn.Sequential(network)
    return Calling(lambda x: x, inner=network)


@pytest.mark.parametrize(
    "make",
    [
        _by_global, _by_class, _by_autograd, _by_attribute, _by_bound, _by_disguise, _by_globals, _by_weights_in_a_list,
        _by_layers_in_a_list, _by_one_sample, _by_sign_of_zero, _by_slice, _by_an_empty_cell, _deep,
        lambda value: Calling(lambda x: x, scale=torch.zeros(3).to(torch.float8_e4m3fn)),
    ],
)  # fmt: skip
def test_what_code_reads_from_around_it_counts(make: Callable[[float], nn.Module]) -> None:
    factor, x = FACTORS["all"], torch.randn(2, 8)
    try:
        for value in (1.0, 2.0, 1.0):
            network = make(value).eval()
            kept = capture(network, (x,))
            torch.testing.assert_close(kept(x), network(x))
            with kept_results.anew():
                new = capture(network, (x,))
            assert of_program(kept) == of_program(new)
            assert kept.capture_notes == new.capture_notes
    finally:
        FACTORS["all"] = factor


def test_a_hook_of_all_modules_counts() -> None:
    network, x = Calling(torch.relu).eval(), torch.randn(2, 8)
    capture(network, (x,))
    hook = torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, output: output * 3)
    try:
        with pytest.raises(UnsupportedModelError):  # it would run on the captured graph as a whole, too
            capture(network, (x,))
    finally:
        hook.remove()


def test_all_is_made_anew_in_every_thread() -> None:
    network, x = Calling(torch.relu).eval(), torch.randn(2, 8)
    capture(network, (x,))
    with kept_results.anew(), ThreadPoolExecutor(1) as pool:
        assert exports(lambda: pool.submit(capture, network, (x,)).result()) == 1


def test_nothing_is_kept_under_a_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Net()
    before = captured(network)(INPUT)
    with monkeypatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", lambda self, x: x[:, :1].repeat(1, 8, 1, 1))
        torch.testing.assert_close(captured(network)(INPUT), network(INPUT))
    torch.testing.assert_close(captured(network)(INPUT), before)


def _as_buffer(program: Program) -> Program:
    tensors = program.tensors() | {"head.bias": program.tensors()["head.bias"].detach()}
    return program.with_tensors(tensors)


def _with_one_memory(program: Program) -> Program:
    program.parameters()["again.weight"].data = program.parameters()["head.weight"].data
    return program


def _with_another_value(program: Program) -> Program:
    program.parameters()["head.bias"].data.add_(1)
    return program


def _masked(program: Program, *names: str) -> Program:
    program.masks = {name: torch.ones(8, 8, dtype=torch.bool) for name in names}
    return program


@pytest.mark.parametrize(
    "change",
    [
        _as_buffer, _with_one_memory, _with_another_value,
        lambda program: _masked(program, "head.weight", "again.weight"),
        lambda program: _masked(program, "again.weight", "head.weight"),
    ],
)  # fmt: skip
def test_a_program_that_differs_is_written_anew(change: Callable[[Program], Program], tmp_path: Path) -> None:
    program = _masked(captured(Net()), "head.weight")
    for changed in (program, change(program.clone()), _masked(program.clone(), "head.weight", "again.weight")):
        changed.save(tmp_path / "kept.pt2")
        with kept_results.anew():
            changed.save(tmp_path / "new.pt2")
        assert (tmp_path / "kept.pt2").read_bytes() == (tmp_path / "new.pt2").read_bytes()
