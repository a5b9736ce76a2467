"""Measured times of a network's layers beside those that a cost model and a roofline tell."""

from collections.abc import Sequence
from dataclasses import dataclass

from prunec.compiler.commands.profile_subject import ProfileSubject
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.costs.counting import work_of
from prunec.passes.patterns.pattern import TWO_FOUR
from prunec.passes.program import Program
from prunec.passes.quantization.quantizers import is_quantized
from prunec.passes.unknown import Unknown
from prunec.runtime import children
from prunec.runtime.costs.roofline import roofline_costs, weights_in_float
from prunec.runtime.profile import OperatorTime, kernel_positions, node_positions
from prunec.runtime.target import Target


@dataclass(frozen=True)
class LayerTime:
    """One call of a layer with what follows it up to the next, in milliseconds of one inference.

    Attributes:
        name: Path of the layer, with ``#2`` for its second call; empty for what comes before the first layer.
        measured_ms: Time that was measured; None where the engine tells none of its own.
        model_ms: Time by the cost model; None where none was given for this batch and these threads.
        predicted_ms: Time that the roofline of the target predicts, which nothing here measures; None without one.
    """

    name: str
    measured_ms: float | None
    model_ms: float | None
    predicted_ms: float | None


def layer_times(
    subject: ProfileSubject, operators: Sequence[OperatorTime] | Unknown, batch: int, costs: CostModel | None
) -> tuple[LayerTime, ...] | Unknown:
    """The layers in the order of execution.

    Args:
        subject: The model.
        operators: Times of what its engine really runs.
        batch: Samples per inference.
        costs: A cost model for this batch and these threads.

    Raises:
        InputError: The cost model knows nothing of one of the layers.
    """
    if isinstance(operators, Unknown):
        return operators
    if subject.program is None:
        return Unknown("an ONNX file alone doesn't tell the layers of its network.")
    work = work_of(subject.program)
    roofline = None if subject.target is None else _roofline(subject.program, subject.target, batch)
    told = [None if model is None else model.layer_ms(work).tolist() for model in (costs, roofline)]
    modelled, predicted = ([None] * len(work.operations) if times is None else times for times in told)
    measured = _measured_ms(subject, [operation.weight for operation in work.operations], operators)
    rows = zip(work.operations, measured, modelled, predicted, strict=True)
    return tuple(LayerTime(operation.name, *times) for operation, *times in rows if any(times))


def _measured_ms(
    subject: ProfileSubject, weights: Sequence[str], operators: Sequence[OperatorTime]
) -> list[float | None]:
    """Milliseconds of each operation with the kernels that follow its layer; None where no operator tells of it."""
    path = subject.onnx_path.absolute()
    if subject.is_onnx:
        positions = children.call(f"ONNX Runtime optimized {path.name}", kernel_positions, path, weights)
    else:
        positions = node_positions(path, weights)
    result: list[float | None] = [None] * len(weights)
    for time in operators:
        position = positions[time.name]
        result[position] = (result[position] or 0.0) + time.latency_ms
    return result


def _roofline(program: Program, target: Target, batch: int) -> CostModel | None:
    masked = program.masked_to(TWO_FOUR) if target.sparse else frozenset[str]()
    in_float = weights_in_float(program) if is_quantized(program.graph) else frozenset[str]()
    costs = roofline_costs(target, batch, masked, in_float)
    return None if isinstance(costs, Unknown) else costs
