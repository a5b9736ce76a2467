"""What the pages say is there: links, make targets, commands and their options."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from prunec.compiler.cli.main import app
from prunec.compiler.methods.catalogue import METHODS
from prunec.runtime.devices import DEVICES, Device

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for pattern in ("*.md", "docs/*.md", "examples/*/*.md") for path in ROOT.glob(pattern))
_FENCE = re.compile(r"^[ ]*```[^\n]*\n(.*?)^[ ]*```", re.S | re.M)
_LINK = re.compile(r"\]\(([^)#]+)(#[^)]*)?\)")
_COMMAND = re.compile(r"(?:^|[\s`/])prunec ([a-z]+[^`\n]*)")


def ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(text: str) -> list[list[str]]:
    """Every `prunec ...` in fenced blocks and in code spans."""
    blocks = _FENCE.findall(text)
    spans = re.findall(r"`(prunec [^`]+)`", _FENCE.sub("", text))
    lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
    found = []
    for line in (*lines, *spans):
        words = line.strip().split()
        if words and words[0].rpartition("/")[2] == "prunec":
            found.append(shlex.split(line.strip())[1:])
    return found


def known_options() -> dict[str, set[str]]:
    group = typer.main.get_command(app)
    subcommands: dict[str, typer.core.TyperCommand] = group.commands  # type: ignore[attr-defined]
    return {
        name: {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for name, command in subcommands.items()
    }


def test_the_table_of_devices_is_that_of_the_code() -> None:
    rows = {
        row.split("|")[1].strip(" `"): row for row in (ROOT / "docs/engines.md").read_text().splitlines() if "|" in row
    }
    for device in DEVICES.values():
        cells = [cell.strip() for cell in rows[device.name].split("|")[3:9]]
        peaks = [peak_words(device, precision) for precision in ("fp32", "fp16", "int8", "fp8")]
        assert [cells[0], cells[1].removesuffix(" (no bf16)"), *cells[2:4]] == peaks
        assert cells[1].endswith("(no bf16)") == ("fp16" in device.precisions and "bf16" not in device.precisions)
        memory = "not known" if device.memory_gb_per_s is None else f"{device.memory_gb_per_s:g}"
        assert cells[4:6] == ["yes" if device.sparse_tensor_cores else "no", memory]


def peak_words(device: Device, precision: str) -> str:
    peak = device.peak_dense_tops.get(precision)
    return "no" if precision not in device.precisions else "not known" if peak is None else f"{peak:g}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for target, _ in _LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_and_options_exist(page: Path) -> None:
    known = known_options()
    for words in commands(page.read_text()):
        if words[0].startswith("-"):
            assert words[0] in ("--help", "--version")
            continue
        assert words[0] in known, f"{page.name}: prunec {' '.join(words)}"
        used = {word.split("=")[0] for word in words[1:] if word.startswith("-") and not word[1:2].isdigit()}
        assert used <= known[words[0]], f"{page.name}: prunec {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    for words in re.findall(r"(?:^|`)make ([a-z -]+)", page.read_text(), re.M):
        assert set(words.split()) <= targets, f"{page.name}: make {words}"


def test_the_readme_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text()
    for name in known_options():
        assert f"`prunec {name}" in text, name


def test_files_that_the_readme_names_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"`((?:examples|docs|benchmarks)/[^`\s]*)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"(?:compile|inspect|eval) (examples/\S+)", text):
        assert (ROOT / name.strip("`")).exists(), name


def test_every_method_stands_in_its_document_with_its_papers() -> None:
    lines = (ROOT / "docs/methods.md").read_text().splitlines()
    rows = {line.split("`")[1]: line.replace("\\|", "|") for line in lines if line.startswith("| `")}
    for name, method in METHODS.items():
        assert name in rows, name
        assert all(paper in rows[name] for paper in method.papers), name
