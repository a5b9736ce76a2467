"""What the suite keeps of captures and files is what would be made anew; what differs isn't taken for equal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunec.passes import Program, capture
from prunec.runtime import export_onnx
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
        self.table, self.steps, self.options = torch.tensor([1.0, 2.0]), 1, {"relu": True}

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).mean((2, 3)) * self.scale + self.table[0]
        for _ in range(self.steps):
            x = self.again(self.head(x))
        return shifted(x.relu() if self.options["relu"] else x)


def captured(network: nn.Module) -> Program:
    return capture(network.eval(), (INPUT,))


def _other_table(network: Any) -> None:
    network.table = torch.tensor([3.0, 2.0])


def _tied(network: Any) -> None:
    network.again.weight = network.head.weight


def _frozen(network: Any) -> None:
    network.head.weight.requires_grad_(False)


def _hooked(network: Any) -> None:
    network.head.register_forward_hook(lambda module, inputs, output: output * 2)


CHANGES: dict[str, Callable[[Any], object]] = {
    "constant": _other_table,
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


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_captured_anew(change: str) -> None:
    captured(Net())
    network = Net()
    CHANGES[change](network)
    kept = captured(network)
    with kept_results.anew():
        assert of_program(kept) == of_program(captured(network))
    torch.testing.assert_close(kept(INPUT), network(INPUT))


def test_code_that_differs_is_captured_anew() -> None:
    network, factor = Net(), FACTORS["all"]
    before = captured(network)(INPUT)
    FACTORS["all"] = 5.0
    try:
        torch.testing.assert_close(captured(network)(INPUT), before + 3)
    finally:
        FACTORS["all"] = factor
    torch.testing.assert_close(captured(network)(INPUT), before)


def test_nothing_is_kept_under_a_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Net()
    before = captured(network)(INPUT)
    with monkeypatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", lambda self, x: x[:, :1].repeat(1, 8, 1, 1))
        torch.testing.assert_close(captured(network)(INPUT), network(INPUT))
    torch.testing.assert_close(captured(network)(INPUT), before)


def test_a_program_with_another_weight_or_mask_is_written_anew(tmp_path: Path) -> None:
    program, path = captured(Net()), tmp_path / "m.pt2"
    contents = set()
    for change in (lambda: None, lambda: program.parameters()["head.bias"].data.add_(1), lambda: masked(program)):
        change()
        program.save(path)
        contents.add(path.read_bytes())
        assert Program.load(path).masks.keys() == program.masks.keys()
    assert len(contents) == 3


def masked(program: Program) -> None:
    program.masks["head.weight"] = torch.ones(8, 8, dtype=torch.bool)
