"""Archives that somebody made to run code: each kind of payload is refused, and runs where it is trusted."""

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prunec.passes.errors import InputError
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.pt2_archive import _is_arithmetic, is_plain_structure
from prunec.passes.pt2_note import LISTS, write_note

MODEL, SAMPLES = "archive/models/model.json", "archive/data/sample_inputs/model.pt"
WEIGHTS = "archive/data/weights/model_weights_config.json"
CONSTANTS = "archive/data/constants/model_constants_config.json"
Members = dict[str, bytes]


@dataclass(frozen=True)
class MakesFolder:
    """A pickle that makes a folder when it is loaded."""

    path: str

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        import os

        return os.mkdir, (self.path,)


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 3), nn.BatchNorm1d(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    path = tmp_path_factory.mktemp("plain") / "model.pt2"
    capture(Net(), (torch.randn(2, 4),)).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(members: Members, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def edit(members: Members, name: str, change: Callable[[Any], object]) -> Members:
    document = json.loads(members[name])
    change(document)
    return {**members, name: json.dumps(document).encode()}


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def opaque_constant(members: Members, mark: str) -> Members:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    members = edit(members, CONSTANTS, lambda d: d["config"].update(x=entry))
    return {**members, "archive/data/constants/opaque_obj_0": pickle.dumps(MakesFolder(mark))}


def pickled_weight(members: Members, mark: str) -> Members:
    members = edit(members, WEIGHTS, lambda d: next(iter(d["config"].values())).update(use_pickle=True))
    return {**members, "archive/data/weights/weight_0": saved(MakesFolder(mark))}


def legacy_weights(members: Members, mark: str) -> Members:
    return {**members, "archive/data/weights/model.pt": saved({"x": MakesFolder(mark)})}


def legacy_constants(members: Members, mark: str) -> Members:
    return {**members, "archive/data/constants/model.pt": saved({"x": MakesFolder(mark)})}


def example_inputs(members: Members, mark: str) -> Members:
    return {**members, SAMPLES: saved(((MakesFolder(mark),), {}))}


def expression(members: Members, mark: str) -> Members:
    """sympy evaluates the text of a size as Python."""

    def change(document: Any) -> None:
        values = document["graph_module"]["graph"]["tensor_values"]
        sizes = [size for value in values.values() for size in value["sizes"] if "as_expr" in size]
        sizes[0]["as_expr"]["expr_str"] = f"__import__('os').mkdir({mark!r})"

    return edit(members, MODEL, change)


def structure(members: Members, mark: str) -> Members:
    """The structure of the inputs imports a module: `this` here, which leaves itself in sys.modules."""

    def change(document: Any) -> None:
        for call in document["graph_module"]["module_call_graph"]:
            if call["signature"]:
                context = {"__enum__": True, "fqn": "pickletools:OpcodeInfo", "name": "x"}
                level = {"type": "builtins.dict", "context": json.dumps([context]), "children_spec": []}
                call["signature"]["out_spec"] = json.dumps([1, level])

    return edit(members, MODEL, change)


def input_name(members: Members, mark: str) -> Members:
    """torch.fx writes the names of inputs into Python source as they are: a default value is evaluated."""
    name = f"x=__import__('os').mkdir({mark!r})"
    assert b'"images"' in members[MODEL]
    return {**members, MODEL: members[MODEL].replace(b'"images"', json.dumps(name).encode())}


def operator(members: Members, mark: str) -> Members:
    """An operator that makes a file of any name."""

    def change(document: Any) -> None:
        node = document["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.ops.aten.from_file.default"

    return edit(members, MODEL, change)


def callable_operator(members: Members, mark: str) -> Members:
    def change(document: Any) -> None:
        document["graph_module"]["graph"]["nodes"][0]["target"] = "torch.hub.load"

    return edit(members, MODEL, change)


def compiled_library(members: Members, mark: str) -> Members:
    return {**members, "archive/data/aotinductor/model/x.so": b"\x7fELF"}


def quoted_name(members: Members, mark: str) -> Members:
    return edit(members, WEIGHTS, lambda d: d["config"].update({'a"+x+"': next(iter(d["config"].values()))}))


def archive_of_torch_2_7(members: Members, mark: str) -> Members:
    """torch.export.load takes these where the newer form can't be read."""
    broken = {name: content for name, content in members.items() if name != MODEL}
    old = {name: saved({"x": MakesFolder(mark)}) for name in ("serialized_state_dict.pt", "serialized_constants.pt")}
    return {**broken, "archive/version": b"8.1", **{f"archive/{name}": content for name, content in old.items()}}


PAYLOADS = [
    *(opaque_constant, pickled_weight, legacy_weights, legacy_constants, example_inputs, expression, structure),
    *(input_name, operator, callable_operator, compiled_library, quoted_name, archive_of_torch_2_7),
]
#: Those whose code torch.export runs where an archive is trusted: what is refused is no harmless oddity.
RUNNING = [opaque_constant, pickled_weight, legacy_weights, legacy_constants, example_inputs, expression, input_name]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.__name__)
def test_an_archive_that_could_run_code_is_refused(
    members: Members, tmp_path: Path, payload: Callable[[Members, str], Members]
) -> None:
    mark = tmp_path / "CODE_RAN"
    path = written(payload(members, str(mark)), tmp_path / "model.pt2")
    with pytest.raises(InputError, match=r"model\.pt2 (holds|can't be read)"):
        Program.load(path)
    assert not mark.exists()


@pytest.mark.parametrize("payload", RUNNING, ids=lambda payload: payload.__name__)
@pytest.mark.filterwarnings("ignore")
def test_the_payloads_run_where_they_are_trusted(
    members: Members, tmp_path: Path, payload: Callable[[Members, str], Members]
) -> None:
    mark = tmp_path / "CODE_RAN"
    path = written(payload(members, str(mark)), tmp_path / "model.pt2")
    with contextlib.suppress(Exception):  # what comes of it otherwise is none of this test's business
        Program.load(path, trust=True)
    assert mark.exists()


def test_guards_are_never_run(members: Members, tmp_path: Path) -> None:
    """They are source that torch.export keeps with a network; prunec's programs take none of it over."""
    mark = tmp_path / "CODE_RAN"
    members = edit(members, MODEL, lambda d: d.update(guards_code=[f"__import__('os').mkdir({str(mark)!r})"]))
    program = Program.load(written(members, tmp_path / "model.pt2"))
    program(torch.randn(5, 4))
    program.save(tmp_path / "again.pt2")
    assert not mark.exists()


def test_the_note_of_prunec_is_checked_too(members: Members, tmp_path: Path) -> None:
    context = json.dumps([{"__enum__": True, "fqn": "antigravity:x", "name": "x"}])
    level = {"type": "builtins.dict", "context": context, "children_spec": []}

    def change(note: Any) -> None:
        note["inputs"]["structure"] = json.dumps([1, level])

    with pytest.raises(InputError, match="structure"):
        Program.load(written(edit(members, "archive/extra/prunec.json", change), tmp_path / "model.pt2"))


def test_a_written_archive_has_nothing_to_unpickle(members: Members, tmp_path: Path) -> None:
    assert members[SAMPLES] == b""
    assert not any(b"\x80\x02" in content for name, content in members.items() if name.endswith((".pt", ".pkl")))
    for config in (WEIGHTS, CONSTANTS):
        assert not any(entry["use_pickle"] for entry in json.loads(members[config])["config"].values())
    path = written(members, tmp_path / "model.pt2")
    assert Program.load(path).example_inputs[0].shape == (2, 4)
    assert torch.export.load(path).module()(torch.zeros(3, 4)).shape == (3, 3)  # it is an archive of torch.export


def test_inputs_of_any_structure_come_back(tmp_path: Path) -> None:
    class Parts(nn.Module):
        def forward(self, parts: dict[str, Any], scale: int, *, bias: list[torch.Tensor]) -> torch.Tensor:
            return parts["a"].float() * scale + bias[0]

    args = ({"a": torch.arange(6).reshape(2, 3)}, 2)
    kwargs = {"bias": [torch.randn(2, 3, dtype=torch.float32)]}
    program = capture(Parts(), args, kwargs)
    program.save(tmp_path / "model.pt2")
    loaded = Program.load(tmp_path / "model.pt2")
    assert torch.equal(loaded(*loaded.example_args, **loaded.example_kwargs), program(*args, **kwargs))
    for got, expected in zip(loaded.example_inputs, program.example_inputs, strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


class Padded(nn.Module):
    """Pads by numbers that JSON has no form for, as networks do before they take a maximum."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        low = nn.functional.pad(images, [0, 1], value=float("-inf"))
        high = nn.functional.pad(images, [1, 0], value=float("inf"))
        return torch.stack([low, high, images.masked_fill(images > 0, float("nan")).nan_to_num().repeat(1, 2)[:, :5]])


def test_infinite_numbers_are_plain(tmp_path: Path) -> None:
    images = torch.randn(2, 4)
    program = capture(Padded(), (images,))
    program.save(tmp_path / "model.pt2")
    read = Program.load(tmp_path / "model.pt2")
    assert torch.equal(read(images), program(images)) and read(images).isinf().any()


@pytest.mark.parametrize("text", ["inf", "--Infinity", "1e400", "-1", "Infinity()", ""])
def test_other_texts_are_no_numbers(members: Members, tmp_path: Path, text: str) -> None:
    def change(model: Any) -> None:
        model["graph_module"]["graph"]["nodes"][0]["inputs"].append(
            {"name": "value", "arg": {"as_float": text}, "kind": 1}
        )

    with pytest.raises(InputError, match="as_float"):
        Program.load(written(edit(members, MODEL, change), tmp_path / "model.pt2"))


def test_a_tensor_larger_than_its_bytes_is_refused(members: Members, tmp_path: Path) -> None:
    def change(document: Any) -> None:
        entry = next(iter(document["config"].values()))
        entry["tensor_meta"]["sizes"] = [{"as_int": 10**12}]
        entry["tensor_meta"]["strides"] = [{"as_int": 0}]

    with pytest.raises(InputError, match="bytes in the file"):
        Program.load(written(edit(members, WEIGHTS, change), tmp_path / "model.pt2"))


@pytest.mark.parametrize("text", ["s0", "Symbol('s34', positive=True, integer=True)", "2*s0 + 1", "-1*(s0//2)**2"])
def test_sizes_are_arithmetic(text: str) -> None:
    assert _is_arithmetic(text)


@given(
    st.sampled_from(
        [
            *("exit()", "open('x')", "().__class__", "s0.x", "[s0 for s0 in s1]", "f'{s0}'", "lambda: 0", "s0[0]"),
            *("10**10**10", "Pow(9, 999999999)", "2**s0", "1 << 99", "Symbol('a b')", "x := 1", "\uff45val('a')", ""),
            "Pow(Pow(Pow(9, 9), 9), 9)",
        ]
    ),
    st.sampled_from(["{}", "Add({}, 1)", "s0 + ({})", "Symbol('s', integer={})"]),
)
def test_other_expressions_are_not(text: str, around: str) -> None:
    assert not _is_arithmetic(around.format(text))


@pytest.mark.parametrize(
    ("kind", "context", "plain"),
    [
        ("builtins.tuple", "null", True),
        ("builtins.dict", '["a", "b c"]', True),
        ("builtins.dict", '["a\\"b"]', False),
        ("collections.defaultdict", "null", False),
        ("collections.defaultdict", {"default_factory_module": "os", "default_factory_name": "mkdir"}, False),
        ("no.such.Type", '{"a": 1}', False),
        ("torch.Size", "null", True),
        ("builtins.dict", '[{"__enum__": true, "fqn": "this:x", "name": "x"}]', False),
    ],
)
def test_structures_are_tuples_lists_and_dicts(kind: str, context: str, plain: bool) -> None:
    assert is_plain_structure(json.dumps([1, {"type": kind, "context": context, "children_spec": []}])) == plain


@dataclass
class Output:
    """As networks of transformers give."""

    logits: torch.Tensor


class Gives(nn.Module):
    def forward(self, images: torch.Tensor) -> Output:
        return Output(images + 1)


def test_no_class_of_outputs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    capture(Gives(), (torch.zeros(2, 3),)).save(path)
    assert torch.equal(Program.load(path)(torch.zeros(4, 3)).logits, torch.ones(4, 3))
    with zipfile.ZipFile(path) as archive:
        assert not any(b"test_pt2_archive" in archive.read(entry) for entry in archive.namelist())


def test_a_class_that_a_library_registered_comes_back(tmp_path: Path) -> None:
    """Archives of earlier versions name it: it is known here, and where it isn't, the file can't be read."""

    @dataclass
    class Registered(Output):
        pass

    torch.export.register_dataclass(Registered, serialized_type_name="test_pt2_archive.Output")

    class Before(nn.Module):
        def forward(self, images: torch.Tensor) -> Registered:
            return Registered(images + 1)

    path, inputs = tmp_path / "model.pt2", (torch.zeros(2, 3),)
    exported = torch.export.export(Before(), inputs, dynamic_shapes=({0: torch.export.Dim("batch")},))
    exported.example_inputs = None
    note = write_note({}, (inputs, {}), dict.fromkeys(LISTS, ()))
    torch.export.save(exported, path, extra_files={"prunec.json": note})
    assert torch.equal(Program.load(path)(torch.zeros(4, 3)).logits, torch.ones(4, 3))
    name = b"test_pt2_archive.Output"
    with zipfile.ZipFile(path) as archive:
        stored = {entry: archive.read(entry).replace(name, name[::-1]) for entry in archive.namelist()}
    with pytest.raises(InputError, match="not registered"):
        Program.load(written(stored, path))


def test_no_operator_that_is_let_pass_takes_a_path() -> None:
    """`from_file` and `save` are the operators of ATen and prims that name a file; a new one would show here."""
    named = {
        schema.name
        for schema in torch._C._jit_get_all_schemas()
        for argument in schema.arguments
        if schema.name.startswith(("aten::", "prims::"))
        and "str" in str(argument.type)
        and any(word in argument.name for word in ("file", "path", "url", "uri", "module", "code", "library"))
    }
    assert named == {"aten::from_file", "aten::save"}
