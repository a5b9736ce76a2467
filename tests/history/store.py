"""Store what this version writes, for the tests that later versions read it.

To be run whenever the fields of report.json change, from the top folder: python -m tests.history.store NAME
NAME becomes a folder beside this file; the newest sorts last. README.md says how those of older versions were made.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunec.compiler.cli.main import run
from prunec.compiler.report.report import report_schema

FOLDER = Path(__file__).parent
PROJECT = FOLDER / "project"
FIELDS = "fields.txt"
#: Left out of stored bundles: it holds megabytes of plotly.js, and nothing reads it.
LEFT_OUT = "report.html"

_PRUNE = "prune-filters{ratio=0.5,round_to=4}"
_IN_TIME = "prune-filters{latency_speedup=1.3,round_to=4,depth=true}"
_JOINT = "prune-filters{speedup=2,criterion=cc,allocation=joint,min_channels=4}"
_RECOVER = 'recover{epochs=2,schedule="step:0=0.1,1=0.01",batch_size=20}'
_RECOVER_BY_OPTIONS = (
    'recover{epochs=2,schedule="step:0=0.1,1=0.01",batch_size=20,distill=2,distill_weight=0.5,'
    "label_smoothing=0.1,warmup=1,clip_norm=1,ema=0.9,accumulate=2}"
)
_MASK = "sparsify{pattern=elements,ratio=0.5,allocation=global}"
_REWIND = "recover{epochs=2,schedule=wr,early=pretrain,batch_size=20}"
_LIMITS = ("enum", "const", "minimum", "maximum", "pattern", "minLength", "minItems", "maxItems")


@dataclass(frozen=True)
class Case:
    """One compile of the project.

    Attributes:
        arguments: Further arguments of ``prunec compile model.pt``.
        whole: Whether the bundle is stored; otherwise its report alone is.
        exit_code: Exit code of the compile.
    """

    arguments: tuple[str, ...]
    whole: bool = False
    exit_code: int = 0


#: By name. Versions that lacked some of these options were stored with --only.
CASES = {
    "cpu": Case(("-t", "cpu", "--pipeline", f"{_PRUNE} {_RECOVER}"), whole=True),
    "sparse": Case(("-t", "a100-2:4", "--no-engine"), whole=True),
    "no-data": Case(("-t", "cpu", "--config", "no_data.toml", "--pipeline", _PRUNE)),
    "failed": Case(("-t", "h100-dense-fp16", "--config", "no_data.toml", "--pipeline", _PRUNE), exit_code=4),
    "unknown-allowed": Case(
        ("-t", "cpu", "--config", "no_data.toml", "--max-drop-points", "1", "--allow-unknown"), whole=True
    ),
    "nothing-pruned": Case(
        ("-t", "a100-2:4", "--no-engine", "--config", "no_data.toml", "--pipeline", "sparsify{ignore=[head]}")
    ),
    "rounds": Case(("-t", "cpu", "--pipeline", f"repeat{{n=2}}(prune-filters{{ratio=0.25,round_to=4}} {_RECOVER})")),
    "rtx": Case(("-t", "a100-2:4", "--config", "no_data.toml", "--pipeline", "sparsify")),
    "gates": Case(
        ("-t", "a100-2:4", "--no-engine", "--require-sparse", "100%", "--min-speedup", "2", "--allow-unknown"),
        exit_code=7,
    ),
    "re-estimated": Case(("-t", "cpu", "--pipeline", f"{_PRUNE} re-estimate-batchnorm", "--max-drop-points", "100")),
    "options": Case(("-t", "cpu", "--config", "trained.toml", "--pipeline", f"{_PRUNE} {_RECOVER_BY_OPTIONS}")),
    "in-time": Case(("-t", "cpu", "--pipeline", f"{_IN_TIME} {_RECOVER}"), whole=True),
    "int8": Case(("-t", "cpu-int8", "--pipeline", f"{_PRUNE} {_RECOVER} calibrate{{rounding=corrected}}"), whole=True),
    "mixed": Case(
        (
            *("-t", "l4-int8", "--no-engine", "--allow-noop"),
            *("--pipeline", "calibrate{max_output_error=1e-5,rounding=corrected}"),
        ),
        whole=True,
    ),
    "fp8": Case(("-t", "l4-2:4-fp8", "--no-engine", "--pipeline", f"{_PRUNE} sparsify calibrate"), whole=True),
    "settings": Case(
        ("-t", "l4-int8", "--no-engine", "--allow-noop", "--pipeline", "calibrate{method=auto,keep_macs=0.1}"),
        whole=True,
    ),
    "int4": Case(("-t", "a100-int4", "--no-engine", "--pipeline", "calibrate"), whole=True),
    "masks": Case(
        ("-t", "cpu", "--pipeline", f"{_PRUNE} sparsify{{pattern=elements,ratio=0.5,allocation=global}} {_RECOVER}"),
        whole=True,
    ),
    "pretrained": Case(
        (
            *("-t", "cpu", "--control", "random", "--pipeline"),
            f"pretrain{{epochs=2,schedule=constant:0.1,keep_step=1}} {_MASK} {_REWIND}",
        ),
        whole=True,
    ),
    "initialised": Case(
        ("-t", "cpu", "--pipeline", f"pretrain{{epochs=0}} {_MASK.replace('ratio', 'criterion=snip,ratio')} {_RECOVER}")
    ),
    "low-rank": Case(
        ("-t", "cpu", "--pipeline", f"prune-filters{{ratio=0.25,round_to=4}} decompose{{ratio=0.4}} {_RECOVER}"),
        whole=True,
    ),
    "joint": Case(("-t", "cpu", "--pipeline", f"{_JOINT} {_RECOVER}")),
    "controls": Case(
        (
            *("-t", "cpu", "--config", "trained.toml", "--pipeline", f"{_PRUNE} {_RECOVER}", "--seeds", "2"),
            *("--control", "dense", "--control", "random", "--control", "scratch-e"),
        )
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the new folder's, two digits and what changed: 07-engines")
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=CASES, help="names of compiles")
    options = parser.parse_args()
    folder = FOLDER / options.name
    folder.mkdir()
    (folder / FIELDS).write_text(fields(report_schema()), encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch, "project")
        shutil.copytree(PROJECT, project)
        os.chdir(project)  # The report holds the command line: only relative paths are the same everywhere.
        for name in options.only:
            store(name, CASES[name], folder)


def store(name: str, case: Case, folder: Path) -> None:
    """Compile the project in the working directory and keep the bundle, or its report, in a folder."""
    code = run(["compile", "model.pt", *case.arguments, "-o", name])
    if code != case.exit_code:
        raise SystemExit(f"{name}: exit code {code}, expected {case.exit_code}")
    bundle = Path(name)
    if not case.whole:
        shutil.copy(bundle / "report.json", folder / f"{name}.json")
        return
    (bundle / LEFT_OUT).unlink()
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    del manifest["files"][LEFT_OUT]
    (bundle / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.copytree(bundle, folder / name)


def fields(schema: str) -> str:
    """The fields of a JSON schema, a line each: dotted path (``*`` in lists, ``{}`` in maps), types, whether optional.

    Titles and descriptions don't count: they may change without a change of what is written.
    """
    document = json.loads(schema)
    types: dict[str, list[str]] = {}
    for path, kind in _walk(document, "", document.get("$defs", {})):
        if kind not in types.setdefault(path, []):
            types[path].append(kind)
    return "".join(f"{path}: {' | '.join(kinds)}\n" for path, kinds in sorted(types.items()))


def _walk(node: dict[str, Any], path: str, definitions: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Paths and types below a node of a JSON schema; a path of several types comes several times."""
    if "$ref" in node:
        yield from _walk(definitions[node["$ref"].rpartition("/")[2]], path, definitions)
        return
    for option in (*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())):
        yield from _walk(option, path, definitions)
    if "type" not in node and "const" not in node and "enum" not in node:
        return
    if path:
        limits = [f"{limit} {json.dumps(node[limit])}" for limit in _LIMITS if limit in node]
        yield path, " ".join([str(node.get("type", "")), *limits]).strip()
    for name, child in node.get("properties", {}).items():
        below = f"{path}.{name}".removeprefix(".")
        yield from _walk(child, below, definitions)
        if name not in node.get("required", ()):
            yield below, "may be absent"
    for key, step in (("items", "*"), ("additionalProperties", "{}")):
        if isinstance(node.get(key), dict):
            yield from _walk(node[key], f"{path}.{step}", definitions)
    for index, child in enumerate(node.get("prefixItems", ())):
        yield from _walk(child, f"{path}.{index}", definitions)


if __name__ == "__main__":
    main()
