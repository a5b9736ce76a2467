"""The factory's network with fresh weights, as a program."""

from prunec.compiler.facts.request import Request
from prunec.compiler.recovery.controls import reinitialised
from prunec.passes.branch_removal import without_branches
from prunec.passes.output_selection import captured_alike
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program


def fresh_network(request: Request, plan: PruningPlan, seed: int) -> Program:
    """The network of the factory, pruned by a plan, with fresh random weights of its shapes.

    Raises:
        PrunecError: The network's weights can't be drawn, or it can't be pruned or captured: see `reinitialised`.
    """
    settings, dense = request.settings, request.dense
    assert settings.module is not None, "asked for where there is a factory"
    example = dense.example_args, dense.example_kwargs
    module = reinitialised(settings.module, plan, seed, settings.initialise, *example)
    return without_branches(captured_alike(module, dense), plan.removed_branches)
