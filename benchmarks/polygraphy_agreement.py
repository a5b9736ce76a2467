"""Whether NVIDIA's Polygraphy agrees with a bundle's report on which layers are 2:4.

``polygraphy inspect sparsity`` reads every ONNX file of the bundle. A layer that it doesn't check, because its input
channels are no multiple of 4, counts as not 2:4. It skips weights in whole numbers: of an INT8 file it is given a copy
with the numbers that these stand for.

Run from the top folder: python -m benchmarks.polygraphy_agreement BUNDLE
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.tables import finish

_FOUND = re.compile(r"Found (non-)?sparse tensor: (\S+)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def polygraphy_says(onnx_path: Path) -> dict[str, bool]:
    """Weight name -> whether Polygraphy finds 2:4 in it."""
    # The console script beside this interpreter: the package can't be run with -m.
    script = Path(sys.executable).with_name("polygraphy")
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(dequantized(onnx.load(onnx_path)), path := Path(folder, "model.onnx"))
        run = subprocess.run([script, "inspect", "sparsity", path], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise SystemExit(f"polygraphy failed on {onnx_path}:\n{run.stdout}{run.stderr}")
    text = _COLOURS.sub("", run.stdout + run.stderr)
    return {name: not non_sparse for non_sparse, name in _FOUND.findall(text)}


def dequantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose weights in whole numbers are replaced by the numbers that these stand for, in place."""
    stored, readers = {tensor.name: tensor for tensor in model.graph.initializer}, dict[str, str]()
    for node in [each for each in model.graph.node if each.op_type == "DequantizeLinear" and each.input[0] in stored]:
        values, scale = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        scale = scale.reshape([-1 if dim == axis else 1 for dim in range(values.ndim)]) if scale.ndim else scale
        stored[node.input[0]].CopyFrom(numpy_helper.from_array((values * scale).astype(np.float32), node.input[0]))
        readers[node.output[0]] = node.input[0]
        model.graph.node.remove(node)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = readers.get(name, name)
    return model


def report_says(bundle: Path) -> dict[str, bool]:
    """Layer path -> whether the report calls it 2:4."""
    layers = json.loads((bundle / "report.json").read_text())["layers"]
    return {layer["name"]: bool(layer["sparsity"] and layer["sparsity"]["valid"]) for layer in layers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder that `prunec compile` wrote")
    bundle: Path = parser.parse_args().bundle
    reported = report_says(bundle)
    files = sorted(bundle.glob("*.onnx"))
    rows, missed = [], []
    for file in files:
        found = {name.rpartition(".")[0] or name: sparse for name, sparse in polygraphy_says(file).items()}
        missed += [f"{file.name}: {layer} is not in the report" for layer in found.keys() - reported.keys()]
        for layer, valid in reported.items():
            theirs = found.get(layer)
            words = {True: "2:4", False: "no", None: "not checked"}
            rows.append((file.name, layer, words[theirs], words[valid]))
            if bool(theirs) != valid:
                missed.append(f"{file.name}: {layer}: Polygraphy {words[theirs]}, report {words[valid]}")
    if not rows:
        missed.append(f"{bundle} holds no ONNX file or its report no layers")
    agreeing = f"{len(rows) - len(missed)} of {len(rows)} layers agree, {sum(reported.values())} are 2:4"
    finish(f"2:4 in {bundle.name}: {agreeing}", ("file", "layer", "Polygraphy", "report"), rows, missed)


if __name__ == "__main__":
    main()
