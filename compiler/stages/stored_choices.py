"""What a compile measured before its trainings: kept beside their states, so that a resumed one takes the same widths.

A file's name holds the fingerprint of all that it depends on, this machine and its engine's version among them, so that
what another compile left isn't taken.
"""

import hashlib
from pathlib import Path

from prunec.compiler.bundle.bundle_names import STORED_COSTS, STORED_PLAN
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import StepInput
from prunec.compiler.machine.environment import find_gpus
from prunec.compiler.machine.versions import installed_versions, tool_version
from prunec.passes.costs.fitted import FittedCosts
from prunec.passes.identity import weights_sha256
from prunec.passes.plan import PruningPlan
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.whole_file import write_whole
from prunec.runtime.costs.cost_file import costs_json, read_costs
from prunec.runtime.engines.catalogue import preferred_engine
from prunec.runtime.processor import processor


def stored_costs(request: Request, folder: Path | None) -> FittedCosts | None:
    """The cost model that the compile which is resumed has measured; None where there is none.

    Raises:
        InputError: Its file can't be read.
    """
    path = _costs_path(request, folder)
    return read_costs(path) if path is not None and request.settings.resume and path.exists() else None


def store_costs(request: Request, folder: Path | None, model: FittedCosts) -> None:
    """Keep a cost model for a compile that goes on with this one."""
    if (path := _costs_path(request, folder)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, costs_json(model))


def stored_plan(options: PruneFilters, given: StepInput) -> PruningPlan | None:
    """The plan that the compile which is resumed has chosen by measurements; None where there is none.

    Raises:
        InputError: Its file can't be read.
    """
    path = _plan_path(options, given)
    return PruningPlan.read(path) if path is not None and given.request.settings.resume and path.exists() else None


def store_plan(options: PruneFilters, given: StepInput, plan: PruningPlan) -> None:
    """Keep a plan for a compile that goes on with this one."""
    if (path := _plan_path(options, given)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, plan.to_json())


def hardware_and_engine(request: Request) -> tuple[str, str]:
    """What measurements of a request hold for on this machine: its processor or GPU, the engine with its version."""
    target = request.target
    kind = preferred_engine(target, request.settings.engine_options)
    hardware = processor() if target.info.compute_capability is None else ", ".join(find_gpus()[:1])
    return hardware, f"{kind.name} {installed_versions().get(kind.name)}"


def _costs_path(request: Request, folder: Path | None) -> Path | None:
    return (
        None if folder is None else folder / STORED_COSTS.format(_fingerprint(request, weights_sha256(request.dense)))
    )


def _plan_path(options: PruneFilters, given: StepInput) -> Path | None:
    if given.state_folder is None:
        return None
    of_step = _fingerprint(given.request, given.history[-1].weights, options, len(given.history))
    return given.state_folder / STORED_PLAN.format(of_step)


def _fingerprint(request: Request, *further: object) -> str:
    settings = request.settings
    measured = (str(request.target), settings.latency_batch, settings.latency_runs, settings.threads, settings.seed)
    data = None if request.data is None else request.data.sha256
    here = hardware_and_engine(request)
    text = repr((tool_version("prunec"), here, measured, settings.engine_options, data, *further))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
