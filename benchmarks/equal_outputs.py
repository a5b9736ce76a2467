"""Does the code of today compile as an earlier commit did? Equal plans, ONNX files and reports over a fixed set.

Both trees compile the same projects in one run on this machine, each in a process of its own. Compared are plan.json,
the ONNX files and recipe.toml byte by byte, and report.json value by value, less what is measured and how the run was
called. The reason of every null counts, however the report groups reasons. What differs is printed; whether it is meant
is for the reader to judge.

Run from the top folder: python -m benchmarks.equal_outputs --base COMMIT [--only NAME ...]
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tables import finish

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "fashion_mnist"
PACKAGES = ("passes", "runtime", "calibration", "compiler")
NETWORKS = Path(__file__).with_name("equal_outputs_networks.py")
#: Parts of a report that two runs of one tree don't share, as dotted paths; "*" is any index of a list.
MEASURED = (
    *("latency", "latency_cpu", "environment", "engine", "command", "size_bytes.engine", "schema"),
    *("recovery.seconds", "recovery.curve.*.seconds", "steps.*.preflight.seconds"),
    *("layers.*.dense_ms", "layers.*.sparse_ms", "layers.*.gain"),
    *("layers.*.sparsity.found_by_builder", "layers.*.sparsity.chosen_by_builder"),
)
PERMUTE = "permute{seconds=30}"
AGAIN, HALF, GATES = "re-estimate-batchnorm", "prune-filters{ratio=0.5}", ("--max-drop-points", "1")
RECOVER = 'recover{epochs=2,schedule="step:0=0.02,1=0.002",batch_size=50}'


@dataclass(frozen=True)
class Case:
    """One compile: the network it is of, and the arguments of ``prunec compile`` after the checkpoint."""

    name: str
    network: str
    arguments: tuple[str, ...]
    recipe: str = ""
    data: bool = True


DEFAULTS = "[recipe.prune-filters]\nspeedup = 2.0\n[recipe.recover]\nepochs = 2\n"
TABLES = """
[recipe.prune-filters]
ratio = {'cells.*.c1' = 0.25, 'cells.1.c1' = 0.5}
criterion = 'l2'
[recipe.sparsify]
criterion = 'wanda'
ignore = ['fc']
[recipe.re-estimate-batchnorm]
[recipe.recover]
epochs = 1
distill = 4.0
"""
CONTROLS = ("--seeds", "2", "--control", "dense", "--control", "random", "--control", "scratch-e")
SPARSE = ("-t", "a100-2:4", "--no-engine")
CASES = (
    Case("default-cpu", "residual", ("-t", "cpu"), DEFAULTS),
    Case("default-sparse", "residual", (*SPARSE, "--max-drop-points", "90")),
    Case("tables", "residual", (*SPARSE, "--require-sparse", "10%"), TABLES),
    Case(
        "sparsegpt", "residual", ("-t", "l4-2:4", "--pipeline", f"{PERMUTE} sparsify{{criterion=sparsegpt}} {RECOVER}")
    ),
    Case("wanda-alone", "plain", ("-t", "a100-2:4-bf16", "--no-engine", "--pipeline", "sparsify{criterion=wanda}")),
    Case("random", "plain", ("-t", "cpu", "--seed", "3", "--pipeline", "prune-filters{ratio=0.4,criterion=random}")),
    Case(
        "rounds", "plain", ("-t", "cpu", "--pipeline", f"repeat{{n=2}}(prune-filters{{ratio=0.25}} {RECOVER}) {AGAIN}")
    ),
    Case("controls", "residual", ("-t", "cpu", *CONTROLS, "--pipeline", f"prune-filters{{speedup=1.8}} {RECOVER}")),
    Case("standardised", "standardised", ("-t", "cpu", "--pipeline", f"fold-parameters {HALF}"), data=False),
    Case("inexact", "transformer", ("-t", "h100-dense-fp16", "--pipeline", HALF), data=False),
    Case("gates", "plain", ("-t", "a100", "--no-engine", *GATES, "--min-speedup", "1.5", "--epochs", "0")),
    Case("unknown", "plain", ("-t", "cpu", *GATES, "--ratio", "0.3"), data=False),
    Case("nothing", "plain", (*SPARSE, "--pipeline", "sparsify", "--latency-batch", "4"), data=False),
    Case("example", "example", ("-t", "a100-2:4", "--epochs", "1")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="commit to compare with")
    parser.add_argument("--only", nargs="*", default=[], help="names of cases")
    parser.add_argument("--keep", type=Path, help="folder of the base's bundles, made where it doesn't exist")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.only or case.name in options.only]
    rows, differing = [], []
    with tempfile.TemporaryDirectory() as scratch:
        projects = Path(scratch, "projects")
        for case in cases:
            write_project(projects / case.name, case)
        base = options.keep or Path(scratch, "base")
        missing = [case for case in cases if not (base / case.name).exists()]
        compile_all(earlier_tree(options.base, Path(scratch)), projects, base, missing)
        compile_all(ROOT, projects, Path(scratch, "head"), cases)
        for case in cases:
            found = list(differences(base / case.name, Path(scratch, "head") / case.name))
            rows.append((case.name, "equal" if not found else f"{len(found)} differences"))
            differing += [f"{case.name}: {line}" for line in found]
    finish(f"Compiled at {options.base} and today", ("case", "outputs"), rows, differing)


def write_project(folder: Path, case: Case) -> None:
    """The network's checkpoint, its data and its prunec.toml."""
    if case.network == "example":
        shutil.copytree(EXAMPLE, folder)
        return
    folder.mkdir(parents=True)
    shutil.copy(NETWORKS, folder / "networks.py")
    sys.path.insert(0, str(folder))
    from benchmarks import equal_outputs_networks as networks

    torch.manual_seed(0)
    torch.save(networks.trained(getattr(networks, case.network)()).state_dict(), folder / "model.pt")
    config = f'[model]\nfactory = "networks:{case.network}"\ninput = [3, 16, 16]\n'
    config += 'pretraining = {epochs = 3, schedule = "step:0=0.1,2=0.01"}\n'
    if case.data:
        images, labels = networks.images(500)
        halves = {"train_images": images[:400], "train_labels": labels[:400], "test_images": images[400:]}
        np.savez(folder / "data.npz", **halves, test_labels=labels[400:])
        config += (
            '[data]\ntrain = "npz:data.npz"\ntest = "npz:data.npz"\nmean = [0.4]\nstd = [0.2]\naugment = ["flip"]\n'
        )
    (folder / "prunec.toml").write_text(config + case.recipe)


def earlier_tree(commit: str, scratch: Path) -> Path:
    """The packages as they were at a commit."""
    tree = scratch / "tree"
    tree.mkdir()
    archive = subprocess.run(["git", "archive", commit, *PACKAGES], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", tree], input=archive, check=True)
    return tree


def compile_all(tree: Path, projects: Path, output: Path, cases: list[Case]) -> None:
    """Compile every case with the packages of a tree, in one process of its own."""
    output.mkdir(exist_ok=True, parents=True)
    lines = [
        ["compile", str(projects / case.name / "model.pt"), *case.arguments, "-o", str(output / case.name)]
        for case in cases
    ]
    with tempfile.TemporaryDirectory() as namespace:
        Path(namespace, "prunec").mkdir()
        for package in PACKAGES:
            Path(namespace, "prunec", package).symlink_to(tree / package)
        code = (
            "import json, sys; from prunec.compiler.cli.main import run; import prunec.compiler; print(sys.path[:2])\n"
            "for line in json.load(sys.stdin): print(run(line), line[1])"
        )
        environment = os.environ | {"PYTHONPATH": namespace, "OMP_NUM_THREADS": "1"}
        with (output.parent / f"{output.name}.log").open("w") as log:
            text = json.dumps(lines)
            command = [sys.executable, "-c", code]
            subprocess.run(command, input=text, text=True, env=environment, check=True, stdout=log, stderr=log)


def differences(base: Path, head: Path) -> Iterator[str]:
    """What differs between two bundles, in words; two compiles that failed alike are equal."""
    if not base.exists() or not head.exists():
        made = [name for name, path in (("base", base), ("head", head)) if path.exists()]
        last = [line for line in head.parent.with_suffix(".log").read_text().splitlines() if "Error" in line][-1:]
        yield f"bundles made: {' '.join(made) or 'none'} {' '.join(last)}"
        return
    names = {path.name for folder in (base, head) for path in folder.glob("*.onnx")} | {"plan.json"}
    for name in sorted(names):
        digests = [digest(folder / name) for folder in (base, head)]
        if digests[0] != digests[1]:
            yield f"{name}: other bytes"
    recipes = [tomllib.loads((folder / "recipe.toml").read_text()) for folder in (base, head)]
    if recipes[0] != recipes[1]:
        yield f"recipe.toml: {recipes[0]} and {recipes[1]}"
    before, after = (flat_report(json.loads((folder / "report.json").read_text())) for folder in (base, head))
    for path in dict.fromkeys([*before, *after]):
        if path in before and before[path] != after.get(path):  # what only the later one has is a new field
            yield f"{path}: {before.get(path, '(absent)')!r} and {after.get(path, '(absent)')!r}"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "(absent)"


def flat_report(document: dict[str, Any]) -> dict[str, Any]:
    """Values by dotted path, without what is measured; a null is its reason."""
    reasons = document.pop("reasons")
    result = {}
    for path, value in leaves(document, ()):
        if not any(covers(key, path) for key in MEASURED):
            result[".".join(path)] = f"null: {reason_of(path, reasons)}" if value is None else value
    return result


def leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from leaves(child, (*path, key))
    elif isinstance(value, list) and value:
        for index, child in enumerate(value):
            yield from leaves(child, (*path, str(index)))
    else:
        yield path, value


def reason_of(path: tuple[str, ...], reasons: dict[str, str]) -> str:
    """The reason with the longest path that covers this one."""
    covering = [key for key in reasons if covers(key, path)]
    return reasons[max(covering, key=lambda key: (key.count("."), "*" not in key))] if covering else ""


def covers(key: str, path: tuple[str, ...]) -> bool:
    parts = key.split(".")
    pairs = zip(parts, path, strict=False)
    return len(parts) <= len(path) and all(part in (step, "*") for part, step in pairs)


if __name__ == "__main__":
    main()
