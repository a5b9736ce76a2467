"""A step of a plug-in that does, or tells, what it is asked for; mostly what it must not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from prunec.compiler.facts import Aim
from prunec.compiler.facts.step_facts import StepCost, StepInput, StepOutput
from prunec.compiler.pipeline import StepKind, needs_inputs
from prunec.passes import Program, PruneFilters, capture
from prunec.passes.unknown import Unknown


@dataclass(frozen=True)
class Odd:
    does: str

    name: ClassVar[str] = "odd"


def other_network(program: Program) -> Program:
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), (torch.randn(2, 1, 8, 8),))


def other_outputs(program: Program) -> Program:
    return capture(nn.Sequential(program.module, nn.Flatten(0)), program.example_args)


def negated_in_place(program: Program) -> Program:
    with torch.no_grad():
        for parameter in program.parameters().values():
            parameter.neg_()
    return program


def pruned_without_a_plan(program: Program) -> Program:
    return PruneFilters(ratio=0.5).run(program).program


PROGRAMS: dict[str, Callable[[Program], Any]] = {
    "other-network": other_network,
    "other-outputs": other_outputs,
    "in-place": negated_in_place,
    "no-plan": pruned_without_a_plan,
    "training": lambda program: program.clone().train(),
    "no-program": lambda program: program.module,
}
FIGURES: dict[str, Any] = {
    "unknown": {"watts": Unknown("no meter."), "by_layer": {"a.0": Unknown("no."), "a": [1.5, float("nan")]}},
    "scalars": {"one": torch.tensor(1.5), "tensor": torch.zeros(2)},
    "no-mapping": 5,
}


def run(options: Odd, given: StepInput) -> Any:
    if options.does == "nothing":
        return None
    if options.does == "exit":
        raise SystemExit(0)
    if options.does == "no-cost":
        return StepOutput(given.program, cost=5)  # type: ignore[arg-type]
    if options.does == "negative-cost":
        return StepOutput(given.program, cost=StepCost(samples=-1))
    if options.does == "no-options":
        return StepOutput(given.program, options={"does": "x"})
    if options.does == "trains":
        return StepOutput(given.program, cost=StepCost(samples=20, epochs=1, steps=2))
    if options.does == "a-third":
        return StepOutput(given.program, modified=False, aim=Aim("layers painted", 3, 1, "there was no paint"))
    if options.does == "no-aim":
        return StepOutput(given.program, aim=5)  # type: ignore[arg-type]
    if options.does == "no-note":
        return StepOutput(given.program, note=5)  # type: ignore[arg-type]
    if options.does in PROGRAMS:
        return StepOutput(PROGRAMS[options.does](given.program))
    return StepOutput(given.program, modified=False, figures=FIGURES.get(options.does, {"told": options.does}))


STEP = StepKind(name="odd", options=f"{__name__}:Odd", runs=f"{__name__}:run", summary="odd", measures_accuracy=True)
CHANGED = {
    "odd-label": replace(STEP, name="odd-label", accuracy="dense"),
    "no-label": replace(STEP, name="no-label", accuracy="mine"),
    "unmeasured": replace(STEP, name="unmeasured", accuracy="pruned", measures_accuracy=False),
    "lost": replace(STEP, name="lost", place="nowhere"),
    "repeat": replace(STEP, name="repeat"),
    "build": replace(STEP, name="build"),
    "two words": replace(STEP, name="two words"),
    "unordered": replace(STEP, name="unordered", after=("prune-filters",)),  # type: ignore[arg-type]
    "first": replace(STEP, name="first", makes_dense=True),
    "no-step": 5,
}


def __getattr__(name: str) -> object:
    if name in CHANGED:
        return CHANGED[name]
    raise AttributeError(name)


LABELLED = replace(STEP, name="labelled", accuracy="pruned")
SEEING = replace(STEP, name="seeing", needs=needs_inputs)
NEEDY = replace(STEP, name="needy", needs=lambda options: True)  # type: ignore[arg-type,return-value]
