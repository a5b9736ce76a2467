"""``prunec eval``."""

from prunec.compiler.cli import options
from prunec.compiler.cli.output import echo, note, print_json


def eval_(
    path: options.Artifact,
    config: options.Config = None,
    model: options.Factory = None,
    input_: options.Inputs = None,
    trust: options.Trust = False,
    weights: options.Weights = "",
    as_json: options.AsJson = False,
) -> None:
    """Measure accuracy on the test data: of a checkpoint with torch, of a bundle or ONNX file with ONNX Runtime."""
    from prunec.compiler.commands.evaluate_accuracy import evaluate_path

    result = evaluate_path(path, config=config, model=options.model_options(model, input_, trust, weights), note=note)
    if as_json:
        print_json(result)
        return
    accuracy = f"{result.metric} {100 * result.value:.2f} %"
    echo(f"{accuracy} on {result.test_images:,} test images, {result.path}, {result.runs_on}")
