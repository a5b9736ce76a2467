"""Names and words of the code: one name means one thing, lists of values stand once, docstrings can be read alone."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("passes", "runtime", "calibration", "compiler")
#: Aliases there are the options of commands, always named behind their module.
COMMAND_LINE = ROOT / "compiler" / "cli"
#: Lists options by their names.
OPTION_PLACES = ROOT / "compiler" / "fairness" / "option_places.py"
#: An entry of a docstring: ``name: What it is.``
ENTRY = re.compile(r"\s+(\w+): (.+)")
#: Words that a description can't begin with and still have a subject.
FRAGMENT = re.compile(r"(?:(?:Of|Over|As|Likewise|Such as)\b.*|(?:Its|Their|That) \w+|How)\.")


@cache
def modules() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))}


def test_one_public_name_means_one_thing() -> None:
    """Classes, aliases of types and tables; a local alias may be written twice alike."""
    meanings: dict[str, dict[str, Path]] = defaultdict(dict)
    for path, module in modules().items():
        for name, meaning in definitions(module) if COMMAND_LINE not in path.parents else ():
            meanings[name].setdefault(meaning or f"a class of {path}", path)
    assert {name: places for name, places in meanings.items() if len(places) > 1} == {}


def definitions(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Public names of a module with their values as text, empty for a class; parameters of types are left out."""
    for node in module.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, ""
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            meaning = ast.unparse(node.value)
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if not meaning.startswith(("TypeVar(", "ParamSpec(")):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                yield from ((name, meaning) for name in names if not name.startswith("_"))


def test_values_of_an_option_are_listed_once() -> None:
    """No tuple stands beside a `Literal` of the same values, and no such `Literal` is written twice."""
    literals: dict[frozenset[str], list[str]] = defaultdict(list)
    tables: dict[frozenset[str], list[str]] = defaultdict(list)
    for path, module in modules().items():
        of_literals = set()
        for node in ast.walk(module):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
                literals[texts(node.slice)].append(where)
                of_literals.add(node.slice)
            elif isinstance(node, ast.Tuple | ast.List | ast.Set) and node not in of_literals and path != OPTION_PLACES:
                tables[texts(node)].append(where)
    for values, places in literals.items():
        if len(values) > 1:
            own = [place for place in places if not place.startswith("compiler/cli")]  # typer reads these at start-up
            assert len(own) <= 1, f"{sorted(values)} stand at {own}"
            beside = tables[values]
            assert not beside, f"{sorted(values)} stand in a Literal at {own}, and again at {beside}"


def texts(node: ast.expr) -> frozenset[str]:
    """The texts that an expression lists; empty where it holds anything else."""
    elements = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    values = [element.value if isinstance(element, ast.Constant) else None for element in elements]
    return frozenset(map(str, values)) if all(isinstance(value, str) for value in values) else frozenset()


def test_nothing_is_called_by_having_been_found() -> None:
    for path, module in modules().items():
        for node in ast.walk(module):
            name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None)
            assert name != "found", f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


@pytest.mark.parametrize("layer", LAYERS)
def test_entries_of_docstrings_have_a_subject(layer: str) -> None:
    for path, module in modules().items():
        for node in ast.walk(module) if ROOT / layer in path.parents else ():
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for name, text in entries(ast.get_docstring(node) or ""):
                    assert not FRAGMENT.fullmatch(text), f"{path.relative_to(ROOT)}, {node.name}: {name}: {text}"
                    assert text.rstrip(".").lower() != name.replace("_", " "), f"{path}, {node.name}: {name}"


def entries(docstring: str) -> Iterator[tuple[str, str]]:
    """Names and first lines of what stands under ``Args:`` and ``Attributes:``."""
    is_listing = False
    for line in docstring.splitlines():
        if line and not line.startswith(" "):
            is_listing = line in ("Args:", "Attributes:")
        elif is_listing and (match := ENTRY.fullmatch(line)) and line.startswith("    ") and line[4] != " ":
            yield match[1], match[2]


def test_the_rules_can_fail() -> None:
    (told,) = entries(
        "Say something.\n\nArgs:\n    pipeline: Of it.\n        further: words\n\nReturns:\n    x: Of it."
    )
    assert told == ("pipeline", "Of it.")
    assert FRAGMENT.fullmatch("Of it.")
    assert FRAGMENT.fullmatch("Its length.")
    assert not FRAGMENT.fullmatch("Its length in epochs.")
    assert texts(ast.parse("('a', 'b')", mode="eval").body) == {"a", "b"}
    assert dict(definitions(ast.parse("A = 1\n_B = 2\nT = TypeVar('T')\nclass C: ..."))) == {"A": "1", "C": ""}


def test_only_devices_and_engines_ask_for_the_vendor() -> None:
    """What differs between vendors is told by devices, or by the kinds of engines; the table of targets shows it."""
    allowed = {ROOT / "runtime" / "devices.py", ROOT / "runtime" / "tiles.py", COMMAND_LINE / "targets.py"}
    asking = {
        path
        for path, module in modules().items()
        if path not in allowed and path.parent != ROOT / "runtime" / "engines"
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and node.attr == "compute_capability"
    }
    assert asking == set()
