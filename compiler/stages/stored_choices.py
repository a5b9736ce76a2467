"""What a compile measured and chose: kept beside its trainings' states, so that a resumed one takes the same.

A file's name holds the fingerprint of all that it depends on, this machine and its engine's version among them, so that
what another compile left isn't taken.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.bundle.bundle_names import STORED_COSTS, STORED_LAYERS, STORED_PLAN
from prunec.compiler.facts.layer_choice import LayerSearch
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import StepInput
from prunec.compiler.machine.versions import installed_versions, tool_version
from prunec.passes.boundary import file_bytes, reading
from prunec.passes.costs.fitted import FittedCosts
from prunec.passes.identity import weights_sha256
from prunec.passes.plan import PruningPlan
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.whole_file import write_whole
from prunec.runtime.costs.cost_file import costs_json, read_costs
from prunec.runtime.engines.catalogue import preferred_engine
from prunec.runtime.engines.names import ENGINES

#: A network of 1000 layers that are tried one by one has some 30 MB.
_MAX_LAYERS_BYTES = 64 << 20


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


def stored_layers(options: Calibrate, given: StepInput) -> LayerSearch | None:
    """The layers that the compile which is resumed keeps in higher precision; None where none were chosen.

    Raises:
        InputError: Its file can't be read.
    """
    path = _layers_path(options, given)
    return read_layers(path) if path is not None and given.request.settings.resume and path.exists() else None


def store_layers(options: Calibrate, given: StepInput, search: LayerSearch) -> None:
    """Keep a choice of layers for a compile that goes on with this one."""
    if (path := _layers_path(options, given)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(search), ensure_ascii=False))


def read_layers(path: Path) -> LayerSearch:
    """The choice in a file.

    Raises:
        InputError: The file can't be read, is larger than any, or holds no choice that was tried.
    """
    what = f"The choice of layers {path}"
    content = file_bytes(path, _MAX_LAYERS_BYTES, what)
    with reading(what, "layers in higher precision", hint="Remove it: then they are chosen anew."):
        search = TypeAdapter(LayerSearch).validate_json(content)
        if search.kept not in (trial.kept for trial in search.trials):
            raise ValueError("what it chose was not tried")
    return search


def hardware_and_engine(request: Request) -> tuple[str, str]:
    """What measurements of a request hold for on this machine: its processor or GPU, the engine with its version."""
    kind = preferred_engine(request.target, request.settings.engine_options)
    with ENGINES.blame(kind.name):
        hardware = kind.hardware()
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


def _layers_path(options: Calibrate, given: StepInput) -> Path | None:
    if given.state_folder is None:
        return None
    model, of_run = given.costs and given.costs.model, (given.history[-1].weights, given.arm, given.seed)
    of_costs = costs_json(model) if isinstance(model, FittedCosts) else model and model.key
    of_step = _fingerprint(given.request, *of_run, options, given.request.objective.metric_name, of_costs)
    return given.state_folder / STORED_LAYERS.format(of_step)


def _fingerprint(request: Request, *further: object) -> str:
    settings = request.settings
    measured = (str(request.target), settings.latency_batch, settings.latency_runs, settings.threads, settings.seed)
    data = None if request.data is None else request.data.sha256
    here = hardware_and_engine(request)
    text = repr((tool_version("prunec"), here, measured, settings.engine_options, data, *further))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
