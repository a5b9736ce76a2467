"""``prunec eval``."""

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import print_json


def evaluate(
    path: options.Artifact,
    config: options.Config = None,
    model: options.Factory = None,
    input_: options.Inputs = None,
    trust: options.Trust = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure accuracy on the test data: of a checkpoint with torch, of a bundle or ONNX file with ONNX Runtime."""
    from prunec.compiler.evaluate_model import evaluate_path

    found = evaluate_path(path, config=config, model=options.model_options(model, input_, trust))
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(
            f"{found.metric} {100 * found.value:.2f} % on {found.test_images:,} test images, {found.path}, "
            f"{found.runs_on}"
        )
