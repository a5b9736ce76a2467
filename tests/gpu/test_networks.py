"""Networks that come from a GPU: modules, checkpoints and archives of torch.export that are on it."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunec.compiler.project.checkpoint import load_checkpoint
from prunec.passes.applying import apply_plan
from prunec.passes.errors import UnsupportedModelError
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters

pytestmark = pytest.mark.gpu


class Net(nn.Module):
    """Parameters, a buffer, a plain tensor, and one that is made as it runs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
        self.scale = torch.rand(8, 1, 1) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(torch.relu(self.norm(self.first(x)) * self.scale))
        logits: Tensor = self.head(torch.relu(y).mean((2, 3)))
        return logits + torch.arange(4, device=x.device)


def on_gpu() -> Net:
    net = Net().eval().cuda()
    net.scale = net.scale.cuda()
    return net


class Uncopied(Net):
    def __deepcopy__(self, memo: object) -> "Uncopied":
        raise TypeError("it is one of a kind")


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # in what torch.compile imports
@pytest.mark.parametrize("wrapped", [nn.Identity, nn.DataParallel, torch.compile])
def test_a_module_on_the_gpu_is_captured_as_on_the_cpu(wrapped: object) -> None:
    net, x = on_gpu(), torch.rand(3, 1, 8, 8)
    given = net if wrapped is nn.Identity else wrapped(net)  # type: ignore[operator]
    program = capture(given, (torch.rand(2, 1, 8, 8, device="cuda"),))
    assert {tensor.device.type for tensor in program.tensors().values()} == {"cpu"}
    torch.testing.assert_close(program(x), Net().eval()(x))
    assert {parameter.device.type for parameter in net.parameters()} == {"cuda"}, "the network itself stays"


def test_a_plan_is_applied_to_a_module_on_the_gpu() -> None:
    net = on_gpu()
    program = capture(net, (torch.rand(2, 1, 8, 8),))
    result = PruneFilters(ratio=0.5, seed=0).run(program)
    assert result.plan is not None
    apply_plan(net, result.plan, (torch.rand(2, 1, 8, 8, device="cuda"),))
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(net(x.cuda()).cpu(), result.program(x), rtol=1e-3, atol=1e-3)
    assert net.first.out_channels == 4


def test_a_module_that_cannot_be_copied_is_refused_with_what_to_do() -> None:
    net = Uncopied().eval().cuda()
    net.scale = net.scale.cuda()
    with pytest.raises(UnsupportedModelError, match="is on cuda:0") as caught:
        capture(net, (torch.rand(2, 1, 8, 8),))
    assert "network.cpu()" in (caught.value.hint or "")


def test_an_archive_made_on_the_gpu_is_read_on_the_cpu(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    inputs = (torch.rand(2, 1, 8, 8, device="cuda"),)
    exported = torch.export.export(on_gpu(), inputs, dynamic_shapes={"x": {0: batch}})
    torch.export.save(exported, tmp_path / "net.pt2")
    x = torch.rand(3, 1, 8, 8)
    for trust in (False, True):
        program = Program.load(tmp_path / "net.pt2", trust=trust)
        assert {tensor.device.type for tensor in program.tensors().values()} == {"cpu"}
        torch.testing.assert_close(program(x), Net().eval()(x))


def test_a_state_dict_from_the_gpu_is_read(tmp_path: Path) -> None:
    torch.save(copy.deepcopy(on_gpu()).state_dict(), tmp_path / "net.pt")
    loaded = load_checkpoint(tmp_path / "net.pt", model=Net, input_shapes=[(1, 8, 8)])
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(loaded.program(x), Net().eval()(x))
