"""The inputs and outputs of a pipeline's steps, and the facts that they leave."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from prunec.compiler.facts.costs import Costs
from prunec.compiler.facts.ledger import LedgerEntry, MacsPerSample
from prunec.compiler.facts.request import Request
from prunec.compiler.pipeline.pipeline import Step
from prunec.compiler.recovery.rate_pieces import RatePiece
from prunec.passes.allocation.sizes import ChosenSizes
from prunec.passes.base import Aim
from prunec.passes.feeding import BatchInputs, part_of
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown

Fact = TypeVar("Fact")

#: Stands for what needs data where none were given.
NO_DATA = Unknown("no data was given.")


@dataclass(frozen=True)
class StepCost:
    """The cost of a step.

    Attributes:
        samples: Training samples that it looked at, repeated ones counted again.
        epochs: Passes over the training data of a step that trains.
        steps: Optimizer steps.
        macs_per_sample: Operations for each sample; None for one pass of the network that came in, forward, and
            backward too where steps were taken.
        learning_rates: The learning rate over the epochs.
        split: The part of the data that the samples are of, in words.
        processes: Number of processes that trained together; batch norms see each one's share of a batch.

    Raises:
        ValueError: A number is negative or not finite.
    """

    samples: int = 0
    epochs: float = 0.0
    steps: int = 0
    macs_per_sample: MacsPerSample | None = None
    learning_rates: tuple[RatePiece, ...] = ()
    split: str = "training data"
    processes: int = 1

    def __post_init__(self) -> None:
        macs = () if self.macs_per_sample is None else astuple(self.macs_per_sample)
        for number in (self.samples, self.epochs, self.steps, *macs):
            if not 0 <= number < math.inf:
                raise ValueError(f"a cost must be a number of at least 0, got {number!r} in {self}")


@dataclass(frozen=True)
class Beside:
    """Work of a step whose weights were thrown away, as a probe's.

    Attributes:
        stage: Name under which the ledger has it.
        options: The options that it followed, a dataclass.
        cost: Its cost; not known where it failed on the way.
        weights_in: Fingerprint of the weights that it started from.
    """

    stage: str
    options: object
    cost: StepCost | Unknown
    weights_in: str


@dataclass(frozen=True)
class StepOutput:
    """The result of a step.

    Attributes:
        program: The new program; the one that came in stays as it is.
        modified: Whether the two differ.
        plan: The removed slices and the order of the rest; None where the step changes neither.
        compensated: The same value as in `prunec.passes.base.PassResult`.
        fact: A fact for the report, one of prunec's own; None for none.
        figures: Figures of a plug-in's step for the report; what JSON has no form for becomes `Unknown`.
        cost: The cost of the step; None for none, or where the step looks at data for one that isn't known.
        options: The options that were followed, where they say more than those that were given; None where not.
        beside: Work whose weights were thrown away.
        aim: The amount that it was asked for, and what it reached; None where it is asked for no amount of anything.
            Less than half of it fails the compile, unless the settings allow that.
        note: A remark for the user, as a sentence; empty for none.
    """

    program: Program
    modified: bool = True
    plan: PruningPlan | None = None
    compensated: Program | None = None
    fact: object = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    cost: StepCost | None = None
    options: object = None
    beside: tuple[Beside, ...] = ()
    aim: Aim | None = None
    note: str = ""


@dataclass(frozen=True)
class Preflight:
    """What follows all steps, done before a training with the network that the steps will leave, not yet trained.

    Attributes:
        structure: Fingerprint of its operators, shapes and masked layers.
        macs: Its multiply-accumulates for one sample.
        difference_from_torch: Largest relative difference of ONNX Runtime from torch; unknown where it died, or where
            the untrained network's outputs are all zero or not finite.
        accuracy: Metric of its exported form on a few samples, which says that it can be measured, and no more.
        parsed_by: Library and version whose parser took the model; unknown where none did.
        seconds: Duration of it all.
    """

    structure: str
    macs: int
    difference_from_torch: float | Unknown
    accuracy: float | Unknown
    parsed_by: str | Unknown
    seconds: float


@dataclass(frozen=True)
class StepFact:
    """A record of a step that was taken, and of the network after it.

    Attributes:
        step: The step; None for the dense network that came in.
        macs: Multiply-accumulates for one sample.
        nonzero_weights: Number of weights of convolutions and linear layers that are not zero.
        predicted_ms: Sum of the layers' rooflines on the target.
        accuracy: Metric on the test data after it.
        entries: Its entries in the ledger; the dense network's tells of the training that it had.
        weights: Fingerprint of the network's weights after it.
        plan: The plan of its `StepOutput`, as are the fields up to `note`; its program isn't kept.
        preflight: What was tried before it trained; None where it doesn't train, or all had been tried before.
    """

    step: Step | None
    macs: int
    nonzero_weights: int
    predicted_ms: float | Unknown
    accuracy: float | Unknown
    entries: tuple[LedgerEntry, ...]
    weights: str
    plan: PruningPlan | None = None
    fact: object = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    aim: Aim | None = None
    note: str | None = None
    preflight: Preflight | None = None


@dataclass(frozen=True)
class StepInput:
    """The input of a step besides its options: the state of the run.

    Attributes:
        program: The network as the steps before left it; not to be changed.
        request: The request of the compile.
        seed: Seed of the run, for every random choice of a step that has no seed of its own.
        history: Facts of the steps before, the dense network's first.
        arm: Name of the control arm or further seed that is run; empty for the compile itself.
        state_folder: Folder for the states of a compile under way; None for none.
        costs: The cost model for goals in time; None where no step has one, and no file of one was given.
        planned: The sizes that the run's prunings must prune to, in their order: control arms and further seeds take
            those of the compile itself. Empty for that one.
        masked: Number of weights that each step which masks must mask, by the weight; empty where its criterion says.
        planned_ranks: The ranks that the run's decompositions must have, in their order, likewise.
        ahead: The steps after this one.
    """

    program: Program
    request: Request
    seed: int
    history: tuple[StepFact, ...]
    arm: str = ""
    state_folder: Path | None = None
    costs: Costs | None = None
    planned: tuple[ChosenSizes, ...] = ()
    masked: tuple[Mapping[str, int], ...] = ()
    planned_ranks: tuple[Mapping[str, int], ...] = ()
    ahead: tuple[Step, ...] = ()

    def before(self, kind: type[Fact]) -> list[Fact]:
        """The facts of a kind that earlier steps left, in their order."""
        return facts_of(self.history, kind)

    def batches(self, samples: int, batch_size: int | None = None) -> Iterator[tuple[BatchInputs, Tensor]]:
        """Inputs and labels of the training data, augmented and shuffled by the seed.

        Args:
            samples: Number of samples in all; fewer where there are no more.
            batch_size: Samples per batch; all at once by default.
        """
        assert self.request.data is not None, "a step that needs data is refused before any work where there are none"
        batches = self.request.data.train.batches(min(samples, batch_size or samples), epoch=0, seed=self.seed)
        for inputs, labels in batches:
            yield part_of(inputs, slice(samples)), labels[:samples]
            samples -= len(labels)
            if samples <= 0:
                return

    @property
    def plan(self) -> PruningPlan:
        """The plan from the dense network to this one."""
        return whole_plan(self.history)


def facts_of(history: Sequence[StepFact], kind: type[Fact]) -> list[Fact]:
    """The facts of a kind, in the order of the steps that left them."""
    return [step.fact for step in history if isinstance(step.fact, kind)]


def last_fact(history: Sequence[StepFact], kind: type[Fact]) -> Fact | None:
    """The last fact of a kind; None where there is none."""
    facts = facts_of(history, kind)
    return facts[-1] if facts else None


def entries_of(history: Sequence[StepFact]) -> tuple[LedgerEntry, ...]:
    """The ledger's entries of some steps, in order."""
    return tuple(entry for fact in history for entry in fact.entries)


def whole_plan(history: Sequence[StepFact]) -> PruningPlan:
    """The plans of all steps, one after the other."""
    plan = PruningPlan({})
    for step in history:
        plan = plan if step.plan is None else plan.then(step.plan)
    return plan


def last_accuracy(history: Sequence[StepFact]) -> float | Unknown:
    """The accuracy that was measured last."""
    known = [step.accuracy for step in history if not isinstance(step.accuracy, Unknown)]
    return known[-1] if known else history[-1].accuracy
