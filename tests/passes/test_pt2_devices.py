"""Archives that were made on a GPU, as far as the processor can make such ones: their documents name the device."""

import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunec.passes.errors import InputError
from prunec.passes.program import Program
from prunec.passes.pt2_devices import on_cpu
from tests.passes.pt2_of_devices import of_device

BATCH = torch.export.Dim("batch", min=1, max=64)
X = torch.rand(3, 1, 8, 8)


class Net(nn.Module):
    """A parameter, a plain tensor, and one that is made on the device of the input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head, self.scale = nn.Conv2d(1, 4, 3), nn.Linear(144, 3), torch.rand(3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.first(x).relu().flatten(1))
        return logits * self.scale + torch.arange(3, device=x.device)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    path = tmp_path / "here.pt2"
    exported = torch.export.export(Net().eval(), (torch.rand(2, 1, 8, 8),), dynamic_shapes={"x": {0: BATCH}})
    torch.export.save(exported, path)
    return path


def elsewhere(here: Path, device: str) -> Path:
    """The archive as one of another device."""
    path = here.with_name("elsewhere.pt2")
    path.write_bytes(of_device(here.read_bytes(), device))
    return path


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("device", ["cuda", "mps", "xpu"])
def test_an_archive_of_another_device_is_that_of_the_processor(here: Path, device: str, trust: bool) -> None:
    path = elsewhere(here, device)
    assert path.read_bytes() != here.read_bytes()
    program, expected = (Program.load(each, trust=trust) for each in (path, here))
    assert {tensor.device.type for tensor in program.tensors().values()} == {"cpu"}
    assert torch.equal(program(X), expected(X))
    assert program.origin == expected.origin


def test_one_of_the_processor_is_read_as_it_is(here: Path) -> None:
    assert on_cpu(str(here), trust=False) == str(here)


def test_what_is_refused_of_any_device_is_refused_of_this_one(here: Path) -> None:
    path = elsewhere(here, "cuda")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("here/data/aotinductor/model/run.so", b"code")
    with pytest.raises(InputError, match="isn't known to be plain data"):
        Program.load(path)
