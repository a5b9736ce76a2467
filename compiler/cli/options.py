"""Arguments and options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.calibration.config import MAX_SEED

if TYPE_CHECKING:
    from prunec.compiler.project import ModelOptions

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
Seed = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of every random choice.")]


def model_options(factory: str | None, inputs: list[str] | None, trust: bool) -> "ModelOptions":
    """What the command line says of the checkpoint.

    Raises:
        UsageError: an input shape can't be read.
    """
    from prunec.compiler.project import ModelOptions, parse_shape

    return ModelOptions(factory, tuple(map(parse_shape, inputs)) if inputs else None, trust)
