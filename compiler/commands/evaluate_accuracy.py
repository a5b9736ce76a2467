"""``prunec eval``: accuracy of a checkpoint, a bundle or an ONNX file on the test data."""

from dataclasses import dataclass
from pathlib import Path

from prunec.calibration.data import Data
from prunec.compiler.commands.artifacts import onnx_file
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Note, Project, check_fit, check_inputs
from prunec.compiler.recovery.objective import Objective
from prunec.passes.errors import InputError
from prunec.passes.feeding import runner
from prunec.runtime.engines.remote import open_onnx
from prunec.runtime.evaluate import EVALUATION_BATCH, evaluate, predictor
from prunec.runtime.onnx_signature import Signature, file_signature


@dataclass(frozen=True)
class Evaluation:
    """An accuracy on test data.

    Attributes:
        path: File or folder that was evaluated.
        runs_on: "torch" or "ONNX Runtime".
        metric: "top1", or ``module:callable``.
        value: The accuracy as a fraction, 0 to 1.
        test_images: Number of samples.
        data_sha256: Hash of the data.
    """

    path: str
    runs_on: str
    metric: str
    value: float
    test_images: int
    data_sha256: str


def evaluate_path(path: Path, *, config: Path | None, model: ModelOptions, note: Note = None) -> Evaluation:
    """Evaluate on the test data that the project file names; ``note`` receives whose code may run.

    Raises:
        PrunecError: There are no data, or the path can't be loaded or doesn't fit them.
    """
    exported = onnx_file(path, as_deployed=True)
    project = Project.find(path, config, note)
    if exported is None:
        loaded = project.load(path, model, note)
        data, objective = project.required_data(), project.objective()
        check_fit(loaded.program, data, objective)
        value = evaluate(runner(loaded.program), data.test.batches(EVALUATION_BATCH), objective.metric)
    else:
        data, objective = project.required_data(), project.objective()
        value = _evaluate_onnx(exported, data, objective)
    runs_on = "torch" if exported is None else "ONNX Runtime"
    return Evaluation(str(path), runs_on, objective.metric_name, value, len(data.test), data.sha256)


def _evaluate_onnx(path: Path, data: Data, objective: Objective) -> float:
    signature = file_signature(path)
    batches = data.test.batches(_batch(path, signature, data))
    with open_onnx(path, threads=0) as session:
        return evaluate(predictor(session, signature.inputs, signature.outputs), batches, objective.metric)


def _batch(path: Path, signature: Signature, data: Data) -> int:
    """The batch in which an ONNX file can be evaluated."""
    try:
        check_inputs(signature.inputs, data)
    except InputError as error:
        hint = "Check that the project file beside it names the data of this network, or give --config."
        raise InputError(f"{path}: {error.message}", hint=hint) from error
    batch = signature.batch or EVALUATION_BATCH
    if signature.batch and len(data.test) % batch:
        raise InputError(
            f"{path} runs at a batch of {batch} only, and the {len(data.test)} test images are no multiple of it.",
            hint="Set limit_test under [data] in prunec.toml to a multiple.",
        )
    return batch
