"""Folders of Hugging Face. transformers isn't installed here as a rule: an imitation stands for what prunec calls."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from prunec.compiler.bundle.bundle_names import default_output
from prunec.compiler.cli.main import run
from prunec.compiler.project.checkpoint import load_checkpoint
from prunec.compiler.project.checkpoint_file import checkpoint_path
from prunec.compiler.project.hub_folder import read_hub_folder
from prunec.passes.errors import InputError, MissingDependencyError, UnsupportedModelError, UsageError
from prunec.runtime.offline import fetching_nothing
from prunec.runtime.target import Target

CONFIG = {"architectures": ["TinyModel"], "model_type": "tiny", "width": 4, "use_cache": True}
SHAPES = [(8,)]


class TinyConfig(SimpleNamespace):
    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "TinyConfig":
        return cls(**document)


class PreTrainedModel(nn.Module):
    """What prunec calls of transformers' class, whose `from_pretrained` fills in at random what isn't stored."""

    @classmethod
    def from_pretrained(cls, path: None, *, config: Any, state_dict: dict[str, Tensor], **options: Any) -> Any:
        import huggingface_hub.constants

        assert path is None
        assert huggingface_hub.constants.HF_HUB_OFFLINE
        assert options["output_loading_info"]
        module = cls(config)
        own = module.state_dict()
        missing, unexpected = own.keys() - state_dict.keys(), state_dict.keys() - own.keys()
        wrong = {name for name in own.keys() & state_dict.keys() if own[name].shape != state_dict[name].shape}
        fitting = {name: value for name, value in state_dict.items() if name not in unexpected | wrong}
        module.load_state_dict(fitting, strict=False)
        told = {"missing_keys": missing, "unexpected_keys": unexpected, "error_msgs": []}
        return module, told | {"mismatched_keys": {(name, 0, 0) for name in wrong}}


class TinyModel(PreTrainedModel):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.uses_cache = config.use_cache
        self.body, self.head = nn.Linear(8, config.width), nn.Linear(config.width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu())


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The imitation, in the place of the package."""
    module, shown = ModuleType("transformers"), [True]
    verbosity = [30]
    module.__dict__.update(
        __version__="5.0",
        PreTrainedModel=PreTrainedModel,
        TinyModel=TinyModel,
        AutoConfig=SimpleNamespace(for_model=lambda kind: TinyConfig(kind=kind)),
        utils=SimpleNamespace(
            logging=SimpleNamespace(
                CRITICAL=50,
                get_verbosity=lambda: verbosity[0],
                set_verbosity=lambda value: verbosity.__setitem__(0, value),
                is_progress_bar_enabled=lambda: shown[0],
                disable_progress_bar=lambda: shown.__setitem__(0, False),
                enable_progress_bar=lambda: shown.__setitem__(0, True),
                state=(verbosity, shown),
            )
        ),
    )
    monkeypatch.setitem(sys.modules, "transformers", module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    write(folder, CONFIG)
    return folder


def write(folder: Path, config: Any, **changes: Tensor | None) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    state = TinyModel(SimpleNamespace(width=4, use_cache=False)).state_dict()
    state = {name: value for name, value in (state | changes).items() if value is not None}
    save_file(state, folder / "model.safetensors")
    return state


@pytest.mark.parametrize("spelling", ["hf:{}", "{}"])
def test_a_folder_is_loaded(folder: Path, transformers: ModuleType, spelling: str) -> None:
    state = write(folder, CONFIG)
    loaded = load_checkpoint(spelling.format(folder), input_shapes=SHAPES)
    assert isinstance(loaded.module, TinyModel)
    assert all(torch.equal(value, state[name]) for name, value in loaded.module.state_dict().items())
    assert not loaded.module.uses_cache
    assert "TinyModel" in loaded.notes[0]
    assert "cache of keys and values" in loaded.notes[1]
    assert transformers.utils.logging.state == ([30], [True])


def test_the_weights_may_be_in_several_files_and_in_half_precision(folder: Path, transformers: ModuleType) -> None:
    state = {name: value.half() for name, value in write(folder, CONFIG).items()}
    (folder / "model.safetensors").unlink()
    for number, names in enumerate((["body.weight", "body.bias"], ["head.weight", "head.bias"])):
        save_file({name: state[name] for name in names}, folder / f"part-{number}.safetensors")
    index = {"weight_map": {name: f"part-{name.startswith('head'):d}.safetensors" for name in state}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded = load_checkpoint(folder, input_shapes=SHAPES)
    assert {value.dtype for value in loaded.program.tensors().values()} == {torch.float32}
    assert "float16" in " ".join(loaded.notes)
    for name in ("../part-0.safetensors", "/etc/passwd", "part-0.bin"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"body.weight": name}}))
        with pytest.raises(InputError, match="names no files of weights in its folder"):
            load_checkpoint(folder, input_shapes=SHAPES)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head.bias": None}, "1 missing: head.bias"),
        ({"head.weight": torch.ones(5, 4)}, "1 of another shape: head.weight"),
    ],
)
def test_nothing_is_drawn_at_random(
    folder: Path, transformers: ModuleType, changes: dict[str, Any], words: str
) -> None:
    write(folder, CONFIG, **changes)
    with pytest.raises(InputError, match=words):
        load_checkpoint(folder, input_shapes=SHAPES)


def test_what_is_stored_beside_the_network_is_said(folder: Path, transformers: ModuleType) -> None:
    write(folder, CONFIG, pooler=torch.ones(2))
    assert "not used: pooler" in " ".join(load_checkpoint(folder, input_shapes=SHAPES).notes)


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"architectures": ["Unheard"]}, InputError, "has no network Unheard"),
        ({"architectures": ["AutoConfig"]}, InputError, "has no network AutoConfig"),
        ({"architectures": ["os.system"]}, InputError, "doesn't say what its network is"),
        ({"architectures": None}, InputError, "doesn't say what its network is"),
        ({"architectures": ["A", "B"]}, InputError, "doesn't say what its network is"),
        ({"width": 10**9}, InputError, "describes a network of"),
        ({"width": "wide"}, InputError, "can't be read as a network of transformers"),
        ({"inner": {"num_hidden_layers": 10**9}}, InputError, "at most 4096 layers"),
        ({"depths": [2, float("inf")]}, InputError, "at most 4096 layers"),
        ({"auto_map": {"AutoModel": "evil.TinyModel"}}, InputError, "--trust-checkpoint"),
        ({"text": {"auto_map": {"AutoModel": "evil.TinyModel"}}}, InputError, "--trust-checkpoint"),
        ({"attn_implementation": "someone/kernels"}, InputError, "it isn't run"),
        ({"quantization_config": {"bits": 4}}, UnsupportedModelError, "quantised"),
    ],
)
def test_configurations_that_are_refused(
    folder: Path, transformers: ModuleType, config: dict[str, Any], error: type[Exception], words: str
) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    with pytest.raises(error, match=words):
        load_checkpoint(folder, input_shapes=SHAPES)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000, b"x" * (17 << 20)])
def test_damaged_configurations(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json"):
        read_hub_folder(folder)


def test_folders_that_lack_something(folder: Path, transformers: ModuleType, tmp_path: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="adapter"):
        load_checkpoint(folder, input_shapes=SHAPES)
    (folder / "adapter_config.json").unlink()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"has no file model\.safetensors\.\n.*save_pretrained"):
        load_checkpoint(folder, input_shapes=SHAPES)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(InputError, match=r"pointer of Git LFS.*\n.*git lfs pull"):
        load_checkpoint(folder, input_shapes=SHAPES)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "1.safetensors"}}')
    with pytest.raises(InputError, match=r"no file 1\.safetensors\.\n.*index\.json names it"):
        load_checkpoint(folder, input_shapes=SHAPES)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="is a folder"):
        load_checkpoint(f"hf:{folder}", input_shapes=SHAPES)
    with pytest.raises(InputError, match="nothing doesn't exist"):
        load_checkpoint("hf:nothing", input_shapes=SHAPES)


def test_weights_of_a_folder_can_t_be_chosen(folder: Path) -> None:
    with pytest.raises(UsageError, match="holds one network alone"):
        load_checkpoint(folder, weights="ema")


def test_without_transformers_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"prunec\[transformers\]"):
        load_checkpoint(folder, input_shapes=SHAPES)


def test_a_file_of_the_name_comes_before_the_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checkpoint_path("hf:x/y") == Path("x/y")
    assert checkpoint_path("hf:.") == tmp_path
    assert default_output(tmp_path / "Qwen2.5-0.5B", Target.parse("cpu")).name == "Qwen2.5-0.cpu.bundle"
    (tmp_path / "Qwen2.5-0.5B").mkdir()
    assert default_output(tmp_path / "Qwen2.5-0.5B", Target.parse("cpu")).name == "Qwen2.5-0.5B.cpu.bundle"
    Path("hf:x").touch()
    assert checkpoint_path("hf:x") == Path("hf:x")


def test_nothing_is_fetched_for_a_while() -> None:
    import huggingface_hub.constants as hub

    before = hub.HF_HUB_OFFLINE
    with fetching_nothing():
        assert hub.HF_HUB_OFFLINE
    assert before == hub.HF_HUB_OFFLINE


def test_the_command_line_takes_a_folder(
    folder: Path, transformers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    assert run(["inspect", "hf:tiny", "--input", "8"]) == 0
    out = capsys.readouterr()
    assert "prunable groups" in out.out
    assert "TinyModel" in out.err


def test_code_of_a_project_file_within_the_folder_isn_t_run(
    folder: Path, transformers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "prunec.toml").write_text('[model]\nfactory = "evil:build"\n')
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.chdir(folder.parent)
    assert run(["inspect", "hf:tiny", "--input", "8"]) == 0
    assert "evil" not in capsys.readouterr().err
