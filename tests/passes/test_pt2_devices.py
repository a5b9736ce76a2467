"""Archives that were made on a GPU, as far as the processor can make such ones: their documents name the device."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunec.passes import pt2_archive
from prunec.passes.errors import InputError
from prunec.passes.program import Program
from prunec.passes.pt2_devices import on_cpu
from tests.passes.pt2_of_devices import of_device, two_archives

BATCH = torch.export.Dim("batch", min=1, max=64)
X = torch.rand(3, 1, 8, 8)
READER = torch._C.PyTorchFileReader


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


class Boom:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def with_code(archive: bytes, mark: Path) -> bytes:
    """An archive of a GPU whose first weight is a pickled object that runs code."""
    config, buffer = "data/weights/model_weights_config.json", io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(of_device(archive, "cuda"))) as source, zipfile.ZipFile(buffer, "w") as copy:
        name = next(each for each in source.namelist() if each.endswith(config))
        document = json.loads(source.read(name))
        entry = next(iter(document["config"].values()))
        entry["use_pickle"] = True
        weight = name.replace("model_weights_config.json", entry["path_name"])
        data = {name: json.dumps(document).encode(), weight: pickle.dumps(Boom(mark))}
        for each in source.namelist():
            copy.writestr(each, data.get(each) or source.read(each))
    return buffer.getvalue()


def test_a_file_that_is_two_archives_is_refused_and_runs_no_code_where_it_were_not(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, path = tmp_path / "CODE_RAN", tmp_path / "two.pt2"
    exported = torch.export.export(nn.Linear(500, 500), (torch.rand(2, 500),), dynamic_shapes=({0: BATCH},))
    torch.export.save(exported, tmp_path / "large.pt2")
    path.write_bytes(two_archives((tmp_path / "large.pt2").read_bytes(), with_code(here.read_bytes(), mark)))
    with zipfile.ZipFile(path) as seen:
        assert any(b'"cuda"' in seen.read(name) for name in seen.namelist()), "Python sees the other one"
    with pytest.raises(InputError, match="depends on the reader"):
        Program.load(path)
    monkeypatch.setattr(pt2_archive, "check_zip", lambda path: None)
    program = Program.load(path)
    assert [tuple(tensor.shape) for tensor in program.parameters().values()] == [(500, 500), (500,)]
    assert not mark.exists()
    path.write_bytes(with_code(here.read_bytes(), mark))
    with pytest.raises(InputError, match="pickled object"):
        Program.load(path)
    assert not mark.exists()


@pytest.mark.parametrize(("before", "behind"), [(b"#!/bin/sh\n", b""), (b"", b"a comment")])
def test_an_archive_that_is_not_the_whole_file_is_refused(here: Path, before: bytes, behind: bytes) -> None:
    data = here.read_bytes()
    if behind:
        data = data[:-2] + len(behind).to_bytes(2, "little") + behind
    here.write_bytes(before + data)
    with pytest.raises(InputError):
        Program.load(here)


@pytest.mark.parametrize("trust", [False, True])
def test_further_texts_in_an_archive_stay_as_they_are(here: Path, trust: bool) -> None:
    path = elsewhere(here, "cuda")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("here/extra/log.json", b'{"type": "cuda", "index": 0}\n{"type": "conv", "index": 3}\n')
    assert torch.equal(Program.load(path, trust=trust)(X), Program.load(here)(X))


class EarlierReader:
    """The reader of PyTorch 2.11, which tells no sizes of records."""

    def __init__(self, file: object) -> None:
        self._reader = READER(file)

    def __getattr__(self, name: str) -> object:
        if name == "get_record_size":
            raise AttributeError(name)
        return getattr(self._reader, name)


def test_readers_that_tell_no_sizes_will_do(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "PyTorchFileReader", EarlierReader)
    pt2_archive.check_plain(here)
    with zipfile.ZipFile(here) as archive:
        name = next(each for each in archive.namelist() if each.endswith("data/weights/weight_0"))
        parts = {each: archive.read(each) for each in archive.namelist()}
    with zipfile.ZipFile(here, "w") as archive:
        for each, data in parts.items():
            archive.writestr(each, data[:1] if each == name else data)
    with pytest.raises(InputError, match="has 1 bytes in the file"):
        pt2_archive.check_plain(here)
