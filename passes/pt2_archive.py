"""Whether an archive of torch.export (``.pt2``) can be read without running code of its author.

torch.export's loader is made for trusted files. It unpickles members, loads compiled libraries, evaluates symbolic
expressions as Python, and imports modules that the description of a pytree names; then torch.fx compiles Python source
in which names from the file stand as they are. Here every member and every text of an archive is checked against what
`Program.save` writes, before that loader sees it: what isn't known to be plain data is refused.

Records are read by torch's own reader, so that nothing depends on how another one understands the zip archive.
"""

import ast
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from prunec.passes.archives import check_zip, untrusted
from prunec.passes.errors import InputError, first_line
from prunec.passes.pt2_devices import SAMPLE_INPUTS, TENSOR_CONFIGS

_MODEL = "models/model.json"
#: Members that are plain data; the parts of tensors are the bytes of their values.
_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|extra/[\w.-]+|data/weights/weight_\d+|data/constants/tensor_\d+"
    rf"|{'|'.join(map(re.escape, (_MODEL, SAMPLE_INPUTS, *TENSOR_CONFIGS.values())))}"
)
#: Operators of torch that compute on tensors and sizes. The two that are left out read and write files by name.
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|quantized_decomposed|prunec)\.(?!(?:from_file|save)\.)\w+\.\w+"
    r"|torch\.sym_(not|int|float|ite|max|min|sqrt)|math\.trunc"
    r"|_operator\.(eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|pow|truediv|and_|or_|lshift|rshift|getitem)"
)
#: Names that stand in generated source as they are, and names that stand between double quotes there.
_NAME, _QUOTED = re.compile(r"[\w.]*"), re.compile(r"[^\"'\\\x00-\x1f]*")
_QUOTED_KEYS = frozenset({"parameter_name", "buffer_name", "buffer_to_mutate", "tensor_constant_name", "fqn", "config"})
#: Keys of texts that are only ever values: arguments of operators, and notes of the exporter.
_VALUES = frozenset({"as_string", "as_strings", "metadata", "torch_version", "guards_code"})
#: Texts that stand for numbers that JSON has no form for.
_FLOATS = frozenset({"Infinity", "-Infinity", "NaN"})
_NAMED_TUPLE = "collections.namedtuple"
_FUNCTIONS = frozenset(
    {
        *("Symbol", "Dummy", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Mod", "Min", "Max", "Abs", "floor"),
        *("ceiling", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan"),
        *("StrictGreaterThan", "GreaterThan", "And", "Or", "Not", "Piecewise", "ExprCondPair", "FloorDiv"),
        *("ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "PowByNatural"),
        *("FloatPow", "FloatTrueDiv", "IntTrueDiv", "TruncToFloat", "TruncToInt", "RoundToInt", "ToFloat", "Identity"),
    }
)
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow"})
_NUMBERS = frozenset({"Integer", "Rational"})
_EXPRESSION_NODES = (
    *(ast.Expression, ast.Name, ast.Load, ast.Constant, ast.Call, ast.keyword, ast.BinOp, ast.UnaryOp, ast.Compare),
    *(ast.operator, ast.unaryop, ast.cmpop),
)
_LONGEST_EXPRESSION, _MOST_POWERS, _LARGEST_EXPONENT = 10_000, 2, 16


def check_plain(path: Path) -> None:
    """Look whether an archive holds plain data only.

    Raises:
        InputError: It can't be read, holds a part that could run code of its author, or tensors larger than their
            bytes.
    """
    check_zip(path)
    try:
        _check_records(path)
    except (
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:  # too deep a nesting is the first
        raise unreadable(path, error) from error


def _check_records(path: Path) -> None:
    reader = torch._C.PyTorchFileReader(str(path))
    names = reader.get_all_records()
    for name in names:
        if not _MEMBERS.fullmatch(name):
            raise untrusted(path, f"the member {name!r}, which isn't known to be plain data")
    documents = {name: json.loads(reader.get_record(name)) for name in (_MODEL, *TENSOR_CONFIGS.values())}
    samples = reader.get_record(SAMPLE_INPUTS)
    if samples and not _is_plain_pickle(samples):
        raise untrusted(path, "pickled objects other than tensors among its example inputs")
    sizes = {name: _size(reader, name) for name in names if name.startswith(tuple(TENSOR_CONFIGS))}
    for folder, name in TENSOR_CONFIGS.items():
        _check_tensors(path, documents[name], folder, sizes)
    for document in documents.values():
        for what in _code(document):
            raise untrusted(path, what)


def _size(reader: Any, name: str) -> int:
    """Bytes of a record; readers of earlier versions of torch tell them by reading it."""
    tell = getattr(reader, "get_record_size", None)
    return int(tell(name)) if tell is not None else len(reader.get_record(name))


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for a file that is no archive of torch.export, or a broken one."""
    return InputError(
        f"{path} can't be read as a .pt2 archive of torch.export: {first_line(error)}",
        hint="It may be truncated or corrupt, or written by another version of PyTorch.",
    )


def _is_plain_pickle(data: bytes) -> bool:
    """Whether torch's restricted reader, which torch.export tries first, takes all of a pickle, and finds tensors."""
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - it raises nearly anything; whatever it doesn't take isn't plain
        return False
    leaves = pytree.tree_leaves(content)
    return all(isinstance(leaf, Tensor | int | float | str | None) for leaf in leaves)


def _check_tensors(path: Path, document: Any, folder: str, sizes: dict[str, int]) -> None:
    """Refuse tensors that need unpickling, and those that are larger than the bytes that stand for them."""
    for name, entry in document["config"].items():
        if entry["use_pickle"] or entry["tensor_meta"] is None:
            raise untrusted(path, f"the pickled object {name!r}")
        meta, stored = entry["tensor_meta"], sizes[folder + entry["path_name"]]
        shape = [size["as_int"] for size in meta["sizes"]]
        if not all(isinstance(size, int) and size >= 0 for size in shape) or math.prod(shape) > stored:
            raise InputError(f"{path}: the tensor {name!r} of shape {shape} has {stored} bytes in the file.")


def _code(value: Any, key: str = "") -> Iterator[str]:
    """Descriptions of the texts in a document that could become code; ``key`` is the name under which it stands."""
    if isinstance(value, dict):
        names = _QUOTED if key in _QUOTED_KEYS | _VALUES else _NAME
        for name, item in value.items():
            if not names.fullmatch(name):
                yield f"the name {name!r}"
            yield from _code(item, key if key in _VALUES else name)
    elif isinstance(value, list):
        for item in value:
            yield from _code(item, key)
    elif isinstance(value, str) and not _is_harmless(value, key):
        yield f"the text {value[:80]!r} as {key!r}"


def _is_harmless(text: str, key: str) -> bool:
    if key in _VALUES:
        return True
    if key in ("target", "as_operator"):
        return _OPERATOR.fullmatch(text) is not None
    if key in ("as_float", "as_floats"):
        return text in _FLOATS
    if key == "expr_str":
        return _is_arithmetic(text)
    if key in ("in_spec", "out_spec"):
        return is_plain_structure(text, _NAME if key == "in_spec" else _QUOTED)
    return (_QUOTED if key in _QUOTED_KEYS else _NAME).fullmatch(text) is not None


def _is_arithmetic(text: str) -> bool:
    """Whether a symbolic expression, which sympy evaluates as Python, only computes numbers of a sane size."""
    if len(text) > _LONGEST_EXPRESSION or not text.isascii():
        return False
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    exponents = [exponent for node in nodes for exponent in _exponents(node)]
    return (
        all(isinstance(node, _EXPRESSION_NODES) and _is_plain_node(node) for node in nodes)
        and len(exponents) <= _MOST_POWERS
        and all(isinstance(e, ast.Constant) and abs(e.value) <= _LARGEST_EXPONENT for e in map(_unsigned, exponents))  # type: ignore[arg-type]
    )


def _is_plain_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if isinstance(node, ast.Constant):
        value = node.value
        return isinstance(value, int | float) or (isinstance(value, str) and value.isidentifier())
    return not isinstance(node, ast.LShift | ast.RShift | ast.MatMult)


def _exponents(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return [node.right]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _POWERS:
        return node.args[1:]
    return []


def _unsigned(node: ast.expr) -> ast.expr:
    """A number without its sign and without ``Integer(...)`` around it."""
    if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Name) and node.func.id in _NUMBERS:
        node = node.args[0]
    return node.operand if isinstance(node, ast.UnaryOp) else node


def is_plain_structure(text: str, keys: re.Pattern[str] = _QUOTED) -> bool:
    """Whether the text of a pytree's structure names containers that this process knows already, with plain keys.

    Tuples, lists and dicts are known, and what imported libraries registered. Enumerations among the keys, and default
    factories, would be looked up by name, which imports modules.
    """
    try:
        _, root = json.loads(text)
        return all(_is_plain_level(level["type"], level["context"], keys) for level in _levels(root))
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _levels(level: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield level
    for child in level["children_spec"]:
        yield from _levels(child)


def _is_plain_level(kind: str | None, context: Any, keys: re.Pattern[str]) -> bool:
    if kind is None or kind == _NAMED_TUPLE:  # a leaf, or a class that must be registered under the text
        return context is None or isinstance(context, str)
    known = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(kind)
    if known is not None and pytree.SUPPORTED_SERIALIZED_TYPES[known].from_dumpable_context is not None:
        return False
    return _is_plain_context(json.loads(context), keys)


def _is_plain_context(context: Any, keys: re.Pattern[str]) -> bool:
    if isinstance(context, list):
        return all(_is_plain_context(item, keys) for item in context)
    return context is None or isinstance(context, int) or (isinstance(context, str) and bool(keys.fullmatch(context)))
