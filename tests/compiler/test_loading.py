import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from prunec.compiler.bundle.manifest import MANIFEST_NAME, describe_folder, file_sha256
from prunec.compiler.project.checkpoint import LoadedCheckpoint, load_checkpoint
from prunec.passes import Program, capture
from prunec.passes.errors import InputError, PrunecError, UnsupportedModelError, UsageError
from prunec.passes.identity import architecture_sha256, weights_sha256
from prunec.passes.tensors import fingerprint

SHAPES = [(1, 8, 8)]


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.bn = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


class Bomb:
    """Runs code where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(1)
    return Net().eval()


@pytest.fixture
def state(net: Net) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(loaded: LoadedCheckpoint, net: Net) -> bool:
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        return torch.allclose(loaded.program(x), net(x), atol=1e-6)


def fails(path: Path, error: type[PrunecError], *parts: str, **options: Any) -> None:
    with pytest.raises(error) as caught:
        load_checkpoint(path, **{"model": Net, "input_shapes": SHAPES, **options})
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.safetensors"])
def test_state_dict(tmp_path: Path, net: Net, name: str) -> None:
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(net.state_dict(), path)  # type: ignore[operator]
    loaded = load_checkpoint(path, model=Net, input_shapes=SHAPES)
    assert same(loaded, net)
    assert isinstance(loaded.module, Net)
    assert loaded.notes == ()
    assert loaded.program.origin == fingerprint(net.state_dict())


def test_old_format_of_torch_save(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "m.pt"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    assert same(load_checkpoint(path, model=Net, input_shapes=SHAPES), net)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_wrappers_and_the_prefix_of_parallel_training_come_off(
    tmp_path: Path, net: Net, state: dict[str, Tensor], key: str
) -> None:
    path = tmp_path / "m.pt"
    torch.save({"epoch": 3, key: {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    loaded = load_checkpoint(path, model=Net, input_shapes=SHAPES)
    assert same(loaded, net)
    assert repr(key) in loaded.notes[0]
    assert "epoch" in loaded.notes[0]
    assert "'module.'" in loaded.notes[1]


def test_half_precision_weights_are_converted_and_it_is_said(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "m.pt"
    torch.save({name: t.half() if t.is_floating_point() else t for name, t in state.items()}, path)
    loaded = load_checkpoint(path, model=Net, input_shapes=SHAPES)
    assert loaded.program.parameters()["conv.weight"].dtype == torch.float32
    assert "float16" in loaded.notes[0]


def test_pickled_module_only_when_trusted(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "m.pt"
    torch.save(net, path)
    fails(path, InputError, "run any code", "state_dict", "--trust-checkpoint")
    assert same(load_checkpoint(path, input_shapes=SHAPES, trust=True), net)


def test_untrusted_code_is_not_run(tmp_path: Path, state: dict[str, Tensor]) -> None:
    marker, path = tmp_path / "ran", tmp_path / "m.pt"
    torch.save({"state_dict": state, "extra": Bomb(marker)}, path)
    fails(path, InputError, "run any code")
    assert not marker.exists()
    load_checkpoint(path, model=Net, input_shapes=SHAPES, trust=True)
    assert marker.exists()  # so the bomb was live


def test_exported_archive_only_when_trusted(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(net, (torch.randn(2, 1, 8, 8),)), path)
    fails(path, InputError, ".pt2 archive", "--trust-checkpoint")
    loaded = load_checkpoint(path, trust=True)
    assert loaded.module is None
    assert loaded.program.example_inputs[0].shape == (2, 1, 8, 8)
    # The content counts, not the name.
    renamed = path.rename(tmp_path / "m.pt")
    fails(renamed, InputError, ".pt2 archive")


def bundled(folder: Path, net: Net) -> Path:
    """A .pt2 with a manifest beside it that vouches for it."""
    capture(net, (torch.randn(2, 1, 8, 8),)).save(folder / "model.pt2")
    (folder / MANIFEST_NAME).write_text(describe_folder(folder, 0).to_json())
    return folder / "model.pt2"


def test_the_archive_of_a_bundle_is_loaded_where_its_manifest_vouches_for_it(tmp_path: Path, net: Net) -> None:
    loaded = load_checkpoint(bundled(tmp_path, net))
    assert same(loaded, net)
    assert loaded.module is None
    assert "not who made it" in loaded.notes[0]


def test_the_archive_of_a_bundle_is_not_loaded_where_its_hash_differs(tmp_path: Path, net: Net) -> None:
    path = bundled(tmp_path, net)
    expected = file_sha256(path)
    capture(Net(8), (torch.randn(2, 1, 8, 8),)).save(path)
    fails(path, InputError, "not the one its bundle was written with", expected[:12], "--trust-checkpoint")
    assert load_checkpoint(path, trust=True).notes == ()


@pytest.mark.parametrize("manifest", [None, "", "{}", '{"tool": "another", "files": {}}', "of another file"])
def test_the_archive_of_no_bundle_is_not_loaded(tmp_path: Path, net: Net, manifest: str | None) -> None:
    path = bundled(tmp_path, net)
    if manifest == "of another file":
        path = path.rename(tmp_path / "renamed.pt2")
    elif manifest is None:
        (tmp_path / MANIFEST_NAME).unlink()
    else:
        (tmp_path / MANIFEST_NAME).write_text(manifest)
    fails(path, InputError, "a .pt2 archive", "may unpickle", "--trust-checkpoint")


def test_exported_archive_knows_its_input_shape(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "m.pt2"
    capture(net, (torch.randn(2, 1, 8, 8),)).save(path)
    assert load_checkpoint(path, trust=True, input_shapes=SHAPES).program.batch_is_dynamic
    fails(path, UsageError, "[1, 8, 8]", "[1, 9, 9]", trust=True, input_shapes=[(1, 9, 9)])


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "other.pt")
    fails(tmp_path / "nothing.pt", InputError, "doesn't exist", "other.pt")
    fails(tmp_path, InputError, "is a folder")
    (tmp_path / "empty.pt").touch()
    fails(tmp_path / "empty.pt", InputError, "empty")


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors", "m.pt2"])
def test_truncated(tmp_path: Path, net: Net, name: str) -> None:
    path = tmp_path / name
    if name == "m.pt2":
        capture(net, (torch.randn(2, 1, 8, 8),)).save(path)
    else:
        (save_file if name.endswith("safetensors") else torch.save)(net.state_dict(), path)  # type: ignore[operator]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    fails(path, InputError, "truncated or corrupt", trust=True)


@pytest.mark.parametrize(
    "content", [b"hello, this is no checkpoint", b"\x80\x02hello", b"PK\x03\x04" + bytes(100), bytes(1000)]
)
@pytest.mark.parametrize("name", ["m.pt", "m.safetensors", "m.pt2"])
def test_corrupt(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    fails(path, InputError, str(path))


@pytest.mark.parametrize("name", ["m.pt", "m.pt2"])
def test_one_changed_byte(tmp_path: Path, net: Net, name: str) -> None:
    path = tmp_path / name
    if name == "m.pt2":
        capture(net, (torch.randn(2, 1, 8, 8),)).save(path)
    else:
        torch.save(net.state_dict(), path)
    weights = net.head.weight.detach().numpy().tobytes()
    content = path.read_bytes()
    assert weights in content
    path.write_bytes(content.replace(weights, weights[:-1] + bytes([weights[-1] ^ 1])))
    fails(path, InputError, "checksum", "truncated or corrupt", trust=True)


def test_a_file_without_checksums_is_read(tmp_path: Path, net: Net) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(net.state_dict(), tmp_path / "m.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(load_checkpoint(tmp_path / "m.pt", model=Net, input_shapes=SHAPES), net)


def test_text_and_other_archives_are_not_taken_for_pickles(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_text("# a project file\n[model]\n")
    with pytest.raises(InputError, match="as no PyTorch file does") as caught:
        load_checkpoint(tmp_path / "m.pt", model=Net, input_shapes=SHAPES)
    assert "--trust-checkpoint" not in str(caught.value)
    with zipfile.ZipFile(tmp_path / "z.pt", "w") as archive:
        archive.writestr("words", "words")
    fails(tmp_path / "z.pt", InputError, "none that PyTorch wrote")


def test_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.pt").symlink_to("nowhere.pt")
    with pytest.raises(InputError, match="is a link to nothing") as caught:
        load_checkpoint(tmp_path / "m.pt", model=Net, input_shapes=SHAPES)
    assert caught.value.hint is None


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda t: t.to_sparse(), "sparse_coo"),
        (lambda t: t.to("meta"), "no values"),
        (lambda t: t.to(torch.int8), "int8"),
        (lambda t: t.to(torch.complex64), "complex64"),
    ],
)
def test_weights_of_another_kind(
    tmp_path: Path, state: dict[str, Tensor], change: Callable[[Tensor], Tensor], kind: str
) -> None:
    torch.save({**state, "head.weight": change(state["head.weight"])}, tmp_path / "m.pt")
    fails(tmp_path / "m.pt", InputError, f"1 of another kind: head.weight (got {kind}, expected float32)")


def test_a_network_of_another_type_is_converted_and_it_is_said(tmp_path: Path, net: Net) -> None:
    torch.save(net.state_dict(), tmp_path / "m.pt")
    loaded = load_checkpoint(tmp_path / "m.pt", model=lambda: Net().bfloat16(), input_shapes=SHAPES)
    assert {p.dtype for p in loaded.program.parameters().values()} == {torch.float32}
    assert "converted to float32" in loaded.notes[-1]
    capture(net.double(), (torch.randn(2, 1, 8, 8).double(),)).save(tmp_path / "m.pt2")
    fails(tmp_path / "m.pt2", UnsupportedModelError, "float64", "model.float()", trust=True, input_shapes=None)


def test_what_torch_prints_of_a_network_it_can_t_capture_is_not_shown(
    tmp_path: Path, state: dict[str, Tensor], capfd: pytest.CaptureFixture[str]
) -> None:
    class Branching(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (2 if x.sum() > 0 else 1)

    torch.save(state, tmp_path / "m.pt")
    fails(tmp_path / "m.pt", UnsupportedModelError, "data-dependent", model=Branching)
    assert "def forward" not in capfd.readouterr().err


def test_a_plain_pickle_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(pickle.dumps({"weights": [1, 2]}, protocol=2))
    fails(path, InputError)


def test_something_that_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "list.pt")
    fails(tmp_path / "list.pt", InputError, "no state_dict", "list")
    torch.save({"lr": 0.1, "epoch": 4}, tmp_path / "dict.pt")
    fails(tmp_path / "dict.pt", InputError, "no state_dict", "'lr'")


def test_state_dict_that_does_not_fit_names_the_first_mismatches(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "m.pt"
    wrong = OrderedDict(state)
    del wrong["bn.bias"]
    wrong["extra.weight"] = torch.zeros(2)
    wrong["head.weight"] = torch.zeros(7, 4)
    torch.save(wrong, path)
    fails(path, InputError, "doesn't fit Net", "1 missing: bn.bias", "1 unexpected: extra.weight")
    fails(path, InputError, "head.weight (got [7, 4], expected [3, 4])")


def test_only_the_first_few_mismatches_are_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "m.pt"
    torch.save({f"{name}_old": tensor for name, tensor in state.items()}, path)
    # torch itself gives batch norms their count where the file has no versions of modules
    fails(path, InputError, f"{len(state) - 1} missing: conv.weight, conv.bias, bn.weight, ...")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, net: Net, state: dict[str, Tensor], value: float) -> None:
    path = tmp_path / "m.pt"
    state["bn.running_var"][2] = value
    torch.save(state, path)
    fails(path, InputError, "1 of 4 values of bn.running_var are not finite")
    net.load_state_dict(state)
    capture(net, (torch.randn(2, 1, 8, 8),)).save(tmp_path / "m.pt2")
    fails(tmp_path / "m.pt2", InputError, "bn.running_var", trust=True)


def test_wrong_input_shape(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "m.pt"
    torch.save(state, path)
    fails(path, UnsupportedModelError, "(2, 3, 8, 8)", "1 channels", input_shapes=[(3, 8, 8)])
    fails(path, UsageError, "input shape", "--input", input_shapes=None)


def test_weights_without_a_factory_and_factories_that_fail(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "m.pt"
    torch.save(state, path)

    def broken() -> nn.Module:
        raise RuntimeError("no such size")

    fails(path, UsageError, "weights only", "--model", model=None)
    fails(path, InputError, "broken", "test_loading.py:", "no such size", model=broken)
    fails(path, InputError, "expected a torch.nn.Module", model=lambda: 3)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # what makes the file
def test_torchscript_is_refused_by_name(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "m.pt"
    torch.jit.save(torch.jit.trace(net, torch.randn(2, 1, 8, 8)), path)
    fails(path, InputError, "TorchScript", "torch.export")


def test_pickled_module_whose_class_is_gone(tmp_path: Path, net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.pt"
    torch.save(net, path)
    monkeypatch.delitem(globals(), "Net")
    with pytest.raises(InputError, match="needs the code of its class"):
        load_checkpoint(path, input_shapes=SHAPES, trust=True)


def test_example_inputs_of_the_caller(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "m.pt"
    torch.save(net.state_dict(), path)
    loaded = load_checkpoint(path, model=Net, example_inputs=(torch.zeros(2, 1, 6, 6),))
    assert isinstance(loaded.program, Program)
    assert loaded.program.example_inputs[0].shape == (2, 1, 6, 6)


def test_one_network_in_any_file_has_one_identity(tmp_path: Path, net: Net) -> None:
    torch.save(net.state_dict(), tmp_path / "a.pt")
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in net.state_dict().items()}}, tmp_path / "b.pth"
    )
    save_file(net.state_dict(), tmp_path / "c.safetensors")
    torch.save(net, tmp_path / "d.pt")
    capture(net, (torch.zeros(2, 1, 8, 8),)).save(tmp_path / "e.pt2")
    exported = torch.export.export(net, (torch.zeros(4, 1, 8, 8),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(exported, tmp_path / "f.pt2")
    programs = [
        load_checkpoint(path, model=Net, input_shapes=SHAPES, trust=True).program for path in sorted(tmp_path.iterdir())
    ]
    assert len(programs) == 6
    assert len({weights_sha256(program) for program in programs}) == 1
    assert len({architecture_sha256(program) for program in programs}) == 1
