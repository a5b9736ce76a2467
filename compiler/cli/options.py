"""Arguments and options that several commands share."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.compiler.project.checkpoint_file import checkpoint_path
from prunec.passes.seeds import MAX_SEED

if TYPE_CHECKING:
    from prunec.compiler.project.model_options import ModelOptions

_model = partial(typer.Option, rich_help_panel="How to read the checkpoint")

Artifact = Annotated[
    Path,
    typer.Argument(
        parser=checkpoint_path,
        metavar="PATH",
        help="A checkpoint, hf:FOLDER for one of Hugging Face, a bundle's folder, or an ONNX file.",
    ),
]
Checkpoint = Annotated[
    Path,
    typer.Argument(
        parser=checkpoint_path,
        metavar="CHECKPOINT",
        help="Trained network: a state_dict (.pt, .pth, .safetensors), a .pt2 archive, a pickled module, or "
        "hf:FOLDER for one of Hugging Face.",
    ),
]
Target = Annotated[
    str, typer.Option("--target", "-t", help="Device, pattern, precision, as in a100-2:4-fp16; see prunec targets.")
]
Bundle = Annotated[Path, typer.Argument(readable=False, help="Folder that prunec compile wrote.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Project file; by default prunec.toml beside the checkpoint, else in the working directory."
    ),
]
Factory = Annotated[
    str | None,
    _model(
        "--model",
        metavar="MODULE:FACTORY",
        help="Function that builds the network of a state_dict, relative to the working directory.",
    ),
]
Inputs = Annotated[
    list[str] | None, _model("--input", metavar="C,H,W", help="Shape of one sample, without the batch; once per input.")
]
Trust = Annotated[
    bool,
    _model(
        "--trust-checkpoint",
        help="Load what can run code of its author: pickled modules, .pt2 archives, Hugging Face folders with code.",
    ),
]
Weights = Annotated[
    str,
    _model(
        "--weights",
        metavar="NAME",
        help="Which weights to take of a file that holds several, as in ema; by default those that aren't averages.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Threads = Annotated[int, typer.Option("--threads", min=1, max=1024, help="Threads of ONNX Runtime in measurements.")]
LatencyBatch = Annotated[
    int, typer.Option("--latency-batch", min=1, max=65536, help="Batch size in latency measurements.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of every random choice.")]
Dims = Annotated[
    list[str] | None,
    typer.Option(
        "--dims",
        metavar="NAME=MIN:OPT:MAX",
        help="Sizes of a dynamic dimension; batch=1:8:32 by default. Once per dimension.",
        rich_help_panel="Engine",
    ),
]
TimingCache = Annotated[
    Path | None,
    typer.Option(
        "--timing-cache",
        readable=False,
        help="File of kernel timings, read and written when TensorRT builds on the device.",
        rich_help_panel="Engine",
    ),
]


def model_options(factory: str | None, inputs: list[str] | None, trust: bool, weights: str) -> "ModelOptions":
    """The options of the command line on how to read the checkpoint.

    Raises:
        UsageError: An input shape can't be read.
    """
    from prunec.compiler.project.model_options import ModelOptions, parse_shape

    return ModelOptions(factory, tuple(map(parse_shape, inputs)) if inputs else None, trust, weights)
