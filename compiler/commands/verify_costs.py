"""The cost model of a bundle, held against its report and the compiled program."""

from prunec.compiler.bundle.bundle_names import COSTS, REPORT
from prunec.compiler.bundle.bundle_reader import Bundle
from prunec.compiler.commands.verify_checks import NotCheckedError, refuse
from prunec.compiler.commands.verify_claims import Claim, pipeline_of
from prunec.compiler.report.cost_parts import AllocationPart, CostsPart
from prunec.passes.costs.counting import work_of
from prunec.passes.errors import InputError
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import known
from prunec.runtime.costs.cost_file import read_costs


def has_cost_file(costs: CostsPart | None) -> bool:
    """Whether a bundle holds its cost model: one that was measured; a roofline follows from the target."""
    return costs is not None and costs.source == "measured"


def check_costs(bundle: Bundle, program: Program) -> str:
    """Say that the cost model is the one that the report tells of, and predicts of the program what is told.

    Raises:
        InputError: It can't be read, or differs.
        NotCheckedError: The model doesn't know a layer by the name that it has in the compiled program.
    """
    told = bundle.report.costs
    if told is None or not has_cost_file(told):
        return "none, as told: no measured cost model was used"
    model = read_costs(bundle.folder / COSTS)
    filed = CostsPart.of(model, from_file=told.from_file, seconds=told.seconds)
    refuse(COSTS, [f"{REPORT} tells of {told}, the file of {filed}"] if told != filed else [])
    pipeline, pruning = pipeline_of(bundle.report), known(bundle.report.pruning)
    allocation = None if pruning is None else known(pruning.allocation)
    if not isinstance(allocation, AllocationPart) or pipeline is None or len(pipeline.of(PruneFilters)) != 1:
        return "the cost model that the report tells of"
    try:
        predicted = float(model.network_ms(work_of(program)))
    except InputError as error:  # of a tied weight model.pt2 has one name, by which the model may not know its layer
        raise NotCheckedError(f"the model that the report tells of; not predicted anew: {error.message}") from error
    claim = Claim("pruning.allocation.predicted.latency_ms", allocation.predicted.get("latency_ms"), predicted)
    refuse(REPORT, [] if claim.holds else [f"{claim.path} is {claim.told!r}, computed anew {claim.computed!r}"])
    return f"the cost model that the report tells of; it predicts {predicted:.3g} ms of the program, as told"
