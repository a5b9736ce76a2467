"""Names of bundles and of the files in them."""

from pathlib import Path

from prunec.compiler.bundle.manifest import MANIFEST_NAME
from prunec.runtime.target import Target

MODEL_ONNX = "model.onnx"
MODEL_PT2 = "model.pt2"
PLAN = "plan.json"
COSTS = "costs.json"
RECIPE = "recipe.toml"
REPORT = "report.json"
REPORT_PAGE = "report.html"
LAYERS = "layers.csv"
#: File of a training under way in a state folder, by the control arm and the number of its retraining.
STATE_NAME = "recover-{}.state"
#: Files of what was measured before a training or chosen after it, in a state folder, by the fingerprint of what it
#: holds for.
STORED_PLAN, STORED_COSTS, STORED_LAYERS = "plan-{}.json", "costs-{}.json", "layers-{}.json"
#: Precision -> ONNX file that an engine of it is built from, where that isn't the float32 file `MODEL_ONNX`.
TYPED_ONNX = {precision: f"model.{precision}.onnx" for precision in ("fp16", "bf16", "int8", "int4", "fp8")}


def typed_name(target: Target) -> str:
    """Name of the ONNX file that an engine of a target is built from."""
    return MODEL_ONNX if target.float_precision == "fp32" else TYPED_ONNX[target.precision]


def default_output(checkpoint: Path, target: Target) -> Path:
    """``<checkpoint stem>.<target>.bundle``, with ``:`` as ``_``, beside a checkpoint or the bundle that it lies in."""
    stem = checkpoint.name if checkpoint.is_dir() else checkpoint.stem  # folders are called Qwen2.5-0.5B
    name = f"{stem}.{target}.bundle".replace(":", "_")
    folder = checkpoint.parent
    return (folder.parent if (folder / MANIFEST_NAME).exists() else folder) / name
