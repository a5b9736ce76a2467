"""Where the weights of a network stand in files, whatever a training script put around them."""

import copy
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

from prunec.compiler.project.checkpoint import LoadedCheckpoint, load_checkpoint
from prunec.compiler.project.state_dict import load_state
from prunec.compiler.project.stored_weights import survey
from prunec.passes.errors import InputError, UsageError

SHAPES = [(1, 8, 8)]


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.bn = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


def network(seed: int) -> Net:
    torch.manual_seed(seed)
    return Net().eval()


A, B = network(1), network(2)


def weights(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: value for name, value in module.state_dict().items()}


def loaded_into(content: object, module: nn.Module, asked: str = "") -> tuple[str, ...]:
    return load_state(module, survey(content, Path("m.pt")), Path("m.pt"), asked)


def is_equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def load(folder: Path, content: object, **options: Any) -> LoadedCheckpoint:
    torch.save(content, folder / "m.pt")
    return load_checkpoint(folder / "m.pt", **{"model": Net, "input_shapes": SHAPES, **options})


OPTIMIZER = {
    "state": {0: {"exp_avg": torch.ones(4, 1, 3, 3), "step": torch.tensor(3.0)}},
    "param_groups": [{"lr": 1.0}],
}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"params": weights(A)}, "'params'"),
        ({"net": weights(A), "acc": 90.1, "epoch": 3}, "acc, epoch"),
        ({"checkpoint": {"model": {"state_dict": weights(A)}}}, "'checkpoint.model.state_dict'"),
        ({"models": [weights(A)]}, "'models.0'"),
        ({"model": None, "ema": weights(A)}, "average over the training"),
        ({"params_ema": weights(A), "optimizer": OPTIMIZER}, "average over the training"),
        ({**weights(A), "epoch": 3, "optimizer": OPTIMIZER}, "epoch, optimizer"),
        ({"state_dict": weights(A, "model.") | {"loss.weight": torch.ones(3)}}, "'loss' (1 tensor)"),
        ({**weights(A), "criterion.weight": torch.ones(3)}, "'criterion' (1 tensor)"),
        ({"state_dict": weights(A, "module._orig_mod.")}, "DistributedDataParallel and torch.compile"),
        ({name.replace("conv.", "conv._orig_mod."): value for name, value in weights(A).items()}, "'_orig_mod'"),
        ({"n_averaged": torch.tensor(3), **weights(A, "module.")}, "(AveragedModel)"),
        ({"model": dict(AveragedModel(A).state_dict())}, "an average over the training"),
        ({"parts": {name: part.state_dict() for name, part in A.named_children()}}, "'parts'"),
        (OrderedDict(nn.DataParallel(A).state_dict()), "'module.'"),
        ({"model": weights(A), "state_dict": weights(A)}, "'model'"),
    ],
)
def test_weights_are_found_and_what_was_done_is_said(content: object, said: str) -> None:
    module = Net()
    notes = loaded_into(content, module)
    assert is_equal(module, A)
    assert said in " ".join(notes)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_weights_are_found_behind_any_keys_and_prefixes(data: st.DataObject) -> None:
    """Oracle: the very tensors that were put in."""
    words = st.sampled_from(["state_dict", "net", "model", "module", "_orig_mod", "backbone", "x", "0"])
    prefix = "".join(f"{word}." for word in data.draw(st.lists(words, max_size=3)))
    content: object = weights(A, prefix) | {"beside.weight": torch.ones(2)} if prefix else weights(A)
    for key in data.draw(st.lists(words, max_size=3)):
        content = {key: content, "epoch": 1, "optimizer": OPTIMIZER}
    module = Net()
    loaded_into(content, module)
    assert is_equal(module, A)


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        ({"model": weights(A), "ema": weights(B)}, "ema"),
        ({"params": weights(A), "params_ema": weights(B)}, "ema"),
        ({"state_dict": weights(A, "module."), "state_dict_ema": weights(B, "module.")}, "state_dict_ema"),
        ({"state_dict": weights(A, "model.") | weights(B, "ema_model.module.")}, "ema"),
        ({"model": weights(A), "modelEMA": weights(B)}, "ema"),
    ],
)
def test_averages_are_taken_where_they_are_asked_for(content: object, asked: str) -> None:
    plain, averaged = Net(), Net()
    assert "averaged weights, too: --weights " in loaded_into(content, plain)[-1]
    assert is_equal(plain, A)
    assert "an average over the training (EMA)" in loaded_into(content, averaged, asked)[-1]
    assert is_equal(averaged, B)


def test_several_weights_that_fit_are_an_error_with_their_names() -> None:
    content = {"net_g": weights(A), "net_d": weights(B)}
    with pytest.raises(InputError, match=r"2 weights of such a network: 'net_g', 'net_d'\.\n.*--weights net_g"):
        loaded_into(content, Net())
    with pytest.raises(InputError, match=r"no weights of the name 'teacher'\.\nIt holds 'net_g', 'net_d'"):
        loaded_into(content, Net(), "teacher")
    module = Net()
    loaded_into(content, module, "net_d")
    assert is_equal(module, B)


def test_the_one_that_fits_is_taken_of_several() -> None:
    module = Net()
    loaded_into({"teacher": weights(Net(9)), "student": weights(A)}, module)
    assert is_equal(module, A)
    with pytest.raises(InputError, match=r"its 'a' doesn't fit Net: 7 of another shape.*Neither do 'b'"):
        loaded_into({"a": weights(Net(9)), "b": weights(Net(8))}, module)


def test_a_layer_that_the_network_lacks_is_never_left_out_in_silence() -> None:
    state = weights(A)
    with pytest.raises(InputError, match=r"2 unexpected: neck\.weight, neck\.bias"):
        loaded_into({**state, "neck.weight": torch.ones(3, 3), "neck.bias": torch.ones(3)}, Net())
    del state["conv.bias"]
    with pytest.raises(InputError, match=r"1 missing: conv\.bias"):
        loaded_into({"model": state}, Net())


class Renamed(Net):
    """Whose hook knows the names of an earlier version, and quantised values."""

    def __init__(self) -> None:
        super().__init__()
        self._register_load_state_dict_pre_hook(self.rename)

    def rename(self, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name in [name for name in state if name.startswith(f"{prefix}fc.")]:
            state[name.replace("fc.", "head.")] = state.pop(name)
        if (value := state.get(f"{prefix}conv.weight")) is not None and value.dtype == torch.int8:
            state[f"{prefix}conv.weight"] = value.float() / 64


def test_load_hooks_run_before_names_and_types_are_compared() -> None:
    old = {name.replace("head.", "fc."): value for name, value in weights(A).items()}
    module = Renamed()
    loaded_into({"state_dict": {f"module.{name}": value for name, value in old.items()}}, module)
    assert is_equal(module, A)
    loaded_into({**old, "conv.weight": torch.full((4, 1, 3, 3), 32, dtype=torch.int8)}, module)
    assert (module.conv.weight == 0.5).all()


def test_a_hook_that_fails_is_told_with_its_line() -> None:
    class Failing(Net):
        def _load_from_state_dict(self, *arguments: Any) -> None:
            raise KeyError("no such version")

    with pytest.raises(InputError, match=r"test_weights_in_files\.py:\d+: KeyError: 'no such version'"):
        loaded_into(weights(A), Failing())


def test_names_that_hooks_translate_altogether() -> None:
    class Translated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
            for name in list(state):
                state[name.replace("ffn.w", "layer.weight").replace("ffn.b", "layer.bias")] = state.pop(name)
            super()._load_from_state_dict(state, prefix, *rest)

    module = Translated()
    loaded_into({"model": {"ffn.w": torch.eye(2), "ffn.b": torch.ones(2)}, "optimizer": OPTIMIZER}, module)
    assert torch.equal(module.layer.weight, torch.eye(2))


def old_norm() -> nn.Module:
    return nn.Sequential(nn.utils.weight_norm(nn.Conv2d(1, 4, 3)), nn.ReLU(), nn.Conv2d(4, 3, 3))


def new_norm() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Conv2d(1, 4, 3)), nn.ReLU(), nn.Conv2d(4, 3, 3))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize("stored", [old_norm, new_norm])
@pytest.mark.parametrize("built", [old_norm, new_norm])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weight_norm_in_both_spellings(
    tmp_path: Path, stored: Callable[[], nn.Module], built: Callable[[], nn.Module], prefix: str
) -> None:
    torch.manual_seed(3)
    dense, x = stored().eval(), torch.randn(3, 1, 8, 8)
    loaded = load(tmp_path, {"net": weights(dense, prefix)}, model=built)
    with torch.no_grad():
        assert torch.allclose(loaded.program(x), dense(x), atol=1e-6)


def test_a_tensor_with_two_names_may_be_stored_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu())

    dense, x = Tied(), torch.randn(3, 1, 8, 8)
    save_model(dense, str(tmp_path / "m.safetensors"))
    loaded = load_checkpoint(tmp_path / "m.safetensors", model=Tied, input_shapes=SHAPES)
    with torch.no_grad():
        assert torch.allclose(loaded.program(x), dense(x), atol=1e-6)


def test_versions_of_modules_count_as_in_torch() -> None:
    """A state_dict that says that its batch norm counts batches must have the count; one that says nothing needn't."""
    state = A.state_dict()
    state = OrderedDict((f"module.{name}", value) for name, value in state.items() if "num_batches" not in name)
    module = Net()
    loaded_into(state, module)
    state._metadata = OrderedDict({"": {}, "module": {}, "module.bn": {"version": 2}})  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"1 missing: bn\.num_batches_tracked"):
        loaded_into(state, module)


def averaged_half() -> Net:
    """As averages are stored by detectors' training: in half precision, and not to be trained."""
    return copy.deepcopy(B).half().requires_grad_(False)


@pytest.mark.parametrize(
    ("content", "asked", "expected", "said"),
    [
        ({"model": None, "ema": averaged_half(), "optimizer": OPTIMIZER}, "", averaged_half(), "float16"),
        ({"model": A, "ema": averaged_half()}, "ema", averaged_half(), "all of them are here"),
        ({"model": A, "ema": averaged_half()}, "", A, "averaged weights, too: --weights ema"),
        (nn.DataParallel(A), "", A, "DataParallel"),
        ({"model": AveragedModel(A)}, "", A, "AveragedModel"),
        ({"net": A, "criterion": nn.CrossEntropyLoss()}, "", A, "not used: criterion"),
    ],
)
def test_pickled_networks(tmp_path: Path, content: object, asked: str, expected: Net, said: str) -> None:
    loaded = load(tmp_path, content, model=None, trust=True, weights=asked)
    assert loaded.module is not None
    assert is_equal(loaded.module, copy.deepcopy(expected).float())
    assert all(parameter.requires_grad for parameter in loaded.module.parameters())
    assert said in " ".join(loaded.notes)


def test_two_pickled_networks_are_an_error_with_their_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 weights of such a network: 'g', 'd'"):
        load(tmp_path, {"g": A, "d": B}, trust=True)


def test_a_factory_may_give_a_wrapped_network(tmp_path: Path) -> None:
    loaded = load(tmp_path, weights(A), model=lambda: nn.DataParallel(Net()))
    assert loaded.module is not None
    assert is_equal(loaded.module, A)
    assert "DataParallel" in loaded.notes[0]


class Masked(Net):
    def __init__(self, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((8, 8), float("-inf")).triu(1), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x + self.mask).softmax(-1))


@pytest.mark.parametrize("persistent", [True, False])
def test_infinity_is_meant_in_a_constant(tmp_path: Path, persistent: bool) -> None:
    loaded = load(tmp_path, Masked(persistent).state_dict(), model=lambda: Masked(persistent))
    torch.export.save(torch.export.export(Masked(persistent).eval(), (torch.randn(2, 1, 8, 8),)), tmp_path / "m.pt2")
    assert torch.isinf(loaded.program.tensors()["mask"]).any()
    load_checkpoint(tmp_path / "m.pt2", trust=True)
    if persistent:
        state = Masked().state_dict()
        state["mask"][0, 0] = float("nan")
        with pytest.raises(InputError, match="1 of 64 values of mask are not finite"):
            load(tmp_path, state, model=Masked)


def test_a_file_of_one_network_has_no_others_to_choose(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(A, (torch.randn(2, 1, 8, 8),)), tmp_path / "m.pt2")
    with pytest.raises(UsageError, match="holds one network alone"):
        load_checkpoint(tmp_path / "m.pt2", trust=True, weights="ema")


@pytest.mark.parametrize(
    ("name", "content", "what", "instead"),
    [
        ("m.onnx", b"anything", "an ONNX file", "Compile the PyTorch checkpoint"),
        ("m.pt", b"\x08\x0a\x12\x07pytorch\x1a\x05", "an ONNX file", "prunec inspect, eval and profile"),
        ("m.pt", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", "git lfs pull"),
        ("m.pt", b"\x89HDF\r\n\x1a\n", "HDF5", "Convert it"),
        ("m.pt", b"<!DOCTYPE html>", "a page of the web", "Download"),
    ],
)
def test_files_of_other_kinds_are_answered_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, what: str, instead: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=what) as caught:
        load_checkpoint(tmp_path / name, model=Net, input_shapes=SHAPES)
    assert instead in str(caught.value)


class Bomb:
    """Runs code where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.marker,)


@pytest.mark.parametrize("legacy", [False, True])
def test_plain_data_beside_the_weights_need_no_trust(tmp_path: Path, legacy: bool) -> None:
    content = {"model": weights(A), "args": Namespace(lr=1, out=Path("x")), "best": np.float64(0.9), "i": np.int64(3)}
    torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy)
    loaded = load_checkpoint(tmp_path / "m.pt", model=Net, input_shapes=SHAPES)
    assert loaded.module is not None
    assert is_equal(loaded.module, A)
    with pytest.raises(InputError, match="--trust-checkpoint"):
        load(tmp_path, content | {"args": Namespace(bomb=Bomb(tmp_path / "ran"))})
    assert not (tmp_path / "ran").exists()


def test_content_without_end_is_refused() -> None:
    nested: dict[str, Any] = {}
    for level in range(7):
        nested = {str(key): nested for key in range(10 if level else 1)}
    with pytest.raises(InputError, match="more than 1,000,000 objects"):
        survey({str(key): nested for key in range(10)}, Path("m.pt"))
    nested.clear()
    nested["self"] = nested
    assert survey(nested, Path("m.pt")).tensors == {}
