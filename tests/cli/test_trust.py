"""No command runs code of whoever made its input, unless the user says so: whole commands with hostile files."""

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto

from prunec.compiler.bundle.manifest import MANIFEST_NAME, describe_folder
from tests.cli.conftest import Prunec

CONSTANTS = "archive/data/constants/model_constants_config.json"


class MakesFolder:
    """A pickle that makes the folder CODE_RAN in the working directory."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("CODE_RAN",)


def poison(path: Path) -> None:
    """Put a pickled object into an archive of torch.export, where its loader unpickles it."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members[CONSTANTS])
    config["config"]["x"] = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    members[CONSTANTS] = json.dumps(config).encode()
    members["archive/data/constants/opaque_obj_0"] = pickle.dumps(MakesFolder())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def vouch(folder: Path) -> None:
    """Write a manifest that fits whatever a folder holds."""
    (folder / MANIFEST_NAME).write_text(describe_folder(folder, 0).to_json())


@pytest.fixture
def downloaded(project: Path, bundle: Path) -> Path:
    """A bundle of somebody else beside the project."""
    return shutil.copytree(bundle, project / "foreign.bundle")


@pytest.mark.parametrize("command", ["verify", "build"])
def test_a_bundle_with_a_pickle_is_refused(project: Path, downloaded: Path, prunec: Prunec, command: str) -> None:
    poison(downloaded / "model.pt2")
    vouch(downloaded)
    outcome = prunec(command, downloaded)
    assert outcome.code in (4, 9)  # 4: no builder for its target is here, which build finds first
    assert not (project / "CODE_RAN").exists()
    if command == "verify":
        assert "the pickled object 'x'" in outcome.err or "opaque_obj_0" in outcome.err


@pytest.mark.parametrize("command", ["inspect", "eval", "profile", "compile"])
@pytest.mark.parametrize("inside", [True, False], ids=["in a bundle", "alone"])
def test_an_archive_with_a_pickle_is_refused(
    project: Path, downloaded: Path, prunec: Prunec, command: str, inside: bool
) -> None:
    poison(downloaded / "model.pt2")
    vouch(downloaded)
    path = downloaded / "model.pt2" if inside else shutil.copy(downloaded / "model.pt2", project / "m.pt2")
    outcome = prunec(command, path, *(("--target", "cpu") if command == "compile" else ()))
    assert outcome.code == 9
    assert "--trust-checkpoint" in outcome.err
    assert not (project / "CODE_RAN").exists()


def test_a_trusted_archive_is_the_users_own_business(project: Path, downloaded: Path, prunec: Prunec) -> None:
    poison(downloaded / "model.pt2")
    prunec("inspect", downloaded / "model.pt2", "--trust-checkpoint")
    assert (project / "CODE_RAN").exists()


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin", "m.pt2", "m.safetensors"])
def test_a_pickled_checkpoint_is_refused(project: Path, prunec: Prunec, name: str) -> None:
    for content in ({"w": MakesFolder()}, MakesFolder()):
        torch.save(content, project / name)
        assert prunec("inspect", project / name).code == 9
        (project / name).write_bytes(pickle.dumps(content))
        assert prunec("inspect", project / name).code == 9
    assert not (project / "CODE_RAN").exists()


def test_a_state_with_a_pickle_is_refused(project: Path, prunec: Prunec) -> None:
    states = project / "x.state"
    states.mkdir()
    torch.save({"identity": {}, "state": MakesFolder()}, states / "recover-0.state")
    outcome = prunec("compile", "model.pt", "--target", "cpu", "-o", "x", "--resume")
    assert not (project / "CODE_RAN").exists()
    assert outcome.code == 9


def test_links_and_pipes_in_a_bundle_are_refused(project: Path, downloaded: Path, prunec: Prunec) -> None:
    (project / "plan.json").write_bytes((downloaded / "plan.json").read_bytes())
    for name, place in (("plan.json", "../plan.json"), ("plan.json", None), ("report.json", None)):
        folder = shutil.copytree(downloaded, project / "copy.bundle")
        (folder / name).unlink()
        (folder / name).symlink_to(place) if place else os.mkfifo(folder / name)
        for command in ("verify", "build", "profile", "inspect"):
            assert prunec(command, folder).code == 9
        shutil.rmtree(folder)


def test_a_folder_behind_a_link_is_none_of_the_bundle(project: Path, downloaded: Path, prunec: Prunec) -> None:
    (downloaded / "more").symlink_to("..")
    assert "more: unexpected" in prunec("verify", downloaded).out


def test_onnx_files_don_t_read_other_files(project: Path, downloaded: Path, prunec: Prunec) -> None:
    (project / "secret").write_bytes(bytes(10_000))
    model = onnx.load(downloaded / "model.onnx")
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.raw_data) > 16)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (downloaded / "model.onnx").write_bytes(model.SerializeToString())
    vouch(downloaded)
    for arguments in (("verify", downloaded), ("profile", downloaded), ("profile", downloaded / "model.onnx")):
        outcome = prunec(*arguments)
        assert outcome.code == 9
        assert "'../secret', outside of the model's folder" in outcome.err


def test_pipes_are_no_checkpoints(project: Path, prunec: Prunec) -> None:
    os.mkfifo(project / "m.pt")
    os.mkfifo(project / "m.onnx")
    for command, name in (("inspect", "m.pt"), ("inspect", "m.onnx"), ("profile", "m.onnx"), ("eval", "m.pt")):
        outcome = prunec(command, name)
        assert outcome.code == 9
        assert "a named pipe" in outcome.err


@pytest.mark.parametrize("command", [("inspect",), ("eval",), ("compile", "--target", "cpu", "--epochs", "0")])
def test_the_first_line_says_whose_code_runs(project: Path, prunec: Prunec, command: tuple[str, ...]) -> None:
    outcome = prunec(command[0], project / "model.pt", *command[1:])
    assert outcome.code == 0
    first = outcome.err.splitlines()[0]
    assert str(project / "prunec.toml") in first
    assert "model:network" in first


@pytest.mark.parametrize("place", ["bundle", "in a bundle", "unpacked", "nested", "state"])
def test_code_that_came_with_a_bundle_or_an_archive_runs_only_where_it_is_pointed_to(
    project: Path, downloaded: Path, prunec: Prunec, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = {"bundle": downloaded, "in a bundle": downloaded / "a" / "b", "state": project / "x.state"}.get(
        place, project / "archive"
    )
    if place in ("unpacked", "nested"):
        (folder / "deep").mkdir(parents=True)
        (folder / "data.pkl").write_bytes(b"")
        folder = folder / "deep" if place == "nested" else folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("prunec.toml", "model.pt", "data.npz"):
        shutil.copy(project / name, folder / name)
    source = (project / "model.py").read_text()
    (folder / "model.py").write_text(f"import os\nos.path.exists('CODE_RAN') or os.mkdir('CODE_RAN')\n{source}")
    (project / "prunec.toml").unlink()
    away = project / "away"
    away.mkdir()
    for working in (away, folder):
        monkeypatch.chdir(working)
        outcome = prunec("inspect", folder / "model.pt")
        assert outcome.code == 9
        assert "model:network" in outcome.err
        assert "--config" in outcome.err
        assert not (working / "CODE_RAN").exists()
    assert prunec("inspect", folder / "model.pt", "--config", folder / "prunec.toml").code == 0
    assert (folder / "CODE_RAN").exists()
