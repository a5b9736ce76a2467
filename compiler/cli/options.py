"""Arguments and options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.calibration.config import MAX_SEED
from prunec.compiler.control_names import CONTROLS

if TYPE_CHECKING:
    from prunec.compiler.project import ModelOptions
    from prunec.runtime.engines.options import EngineOptions

MODEL_PANEL = "How to read the checkpoint"

Checkpoint = Annotated[
    Path,
    typer.Argument(
        readable=False,
        help="Trained network: a state_dict (.pt, .pth, .safetensors), a .pt2 archive or a pickled module.",
    ),
]
Artifact = Annotated[Path, typer.Argument(readable=False, help="A checkpoint, a bundle's folder, or an ONNX file.")]
Bundle = Annotated[Path, typer.Argument(readable=False, help="Folder that prunec compile wrote.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Project file; by default prunec.toml beside the checkpoint, else in the working directory.",
    ),
]
Factory = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODULE:FACTORY",
        help="Function that builds the network of a state_dict, relative to the working directory.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="C,H,W",
        help="Shape of one sample, without the batch; once per input.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-checkpoint",
        help="Load files that can run code of their author: pickled modules and .pt2 archives.",
        rich_help_panel=MODEL_PANEL,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Threads = Annotated[int, typer.Option("--threads", min=1, max=1024, help="Of ONNX Runtime in latency measurements.")]
LatencyBatch = Annotated[
    int, typer.Option("--latency-batch", min=1, max=65536, help="Samples at once in latency measurements.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of every random choice.")]

TRAINING_PANEL = "Training"
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with the training of a compile that was stopped.", rich_help_panel=TRAINING_PANEL
    ),
]
SaveSteps = Annotated[
    int | None,
    typer.Option(
        "--save-steps",
        min=1,
        metavar="N",
        help="Save the state of the training every N steps, besides after every epoch.",
        rich_help_panel=TRAINING_PANEL,
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        "--seeds",
        min=1,
        max=1000,
        help="Runs with further seeds, for mean and deviation.",
        rich_help_panel=TRAINING_PANEL,
    ),
]
Controls = Annotated[
    list[str] | None,
    typer.Option(
        "--control",
        metavar="ARM",
        help=f"Control arm to run beside it, repeatable: {', '.join(CONTROLS)}.",
        rich_help_panel=TRAINING_PANEL,
    ),
]
TensorBoard = Annotated[
    Path | None,
    typer.Option(
        "--tensorboard",
        readable=False,
        metavar="FOLDER",
        help="Write learning curves for TensorBoard.",
        rich_help_panel=TRAINING_PANEL,
    ),
]

ENGINE_PANEL = "Engine"
Dims = Annotated[
    list[str] | None,
    typer.Option(
        "--dims",
        metavar="NAME=MIN:OPT:MAX",
        help="Sizes of a dynamic dimension; batch=1:8:32 by default. Once per dimension.",
        rich_help_panel=ENGINE_PANEL,
    ),
]
AlsoFor = Annotated[
    list[str] | None,
    typer.Option(
        "--also-for",
        metavar="DEVICE",
        help="Build ahead of time one engine that runs on this device too; repeatable.",
        rich_help_panel=ENGINE_PANEL,
    ),
]
TimingCache = Annotated[
    Path | None,
    typer.Option(
        "--timing-cache",
        readable=False,
        help="File of kernel timings, read and written when TensorRT builds on the device.",
        rich_help_panel=ENGINE_PANEL,
    ),
]


def engine_options(dims: list[str] | None, also_for: list[str] | None, timing_cache: Path | None) -> "EngineOptions":
    """What the command line says of the engine.

    Raises:
        UsageError: a range of sizes can't be read.
    """
    from prunec.passes.errors import UsageError
    from prunec.runtime.engines.options import EngineOptions
    from prunec.runtime.engines.shapes import SizeRange

    ranges = {}
    for text in dims or ():
        name, equals, sizes = text.partition("=")
        if not name or not equals:
            raise UsageError(f"--dims {text!r} is not of the form batch=1:8:32.")
        if name in ranges:
            raise UsageError(f"--dims names {name!r} twice.")
        ranges[name] = SizeRange.parse(sizes)
    return EngineOptions(ranges, tuple(also_for or ()), timing_cache)


def model_options(factory: str | None, inputs: list[str] | None, trust: bool) -> "ModelOptions":
    """What the command line says of the checkpoint.

    Raises:
        UsageError: an input shape can't be read.
    """
    from prunec.compiler.project import ModelOptions, parse_shape

    return ModelOptions(factory, tuple(map(parse_shape, inputs)) if inputs else None, trust)
