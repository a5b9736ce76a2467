"""The evidence that criteria decide by: the weights, and the statistics that were measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from prunec.passes.criteria.protocol import Criterion, Statistic
from prunec.passes.errors import UsageError
from prunec.passes.patterns.pattern import TWO_FOUR, Pattern

if TYPE_CHECKING:
    from torch import Tensor

    from prunec.passes.groups import Group
    from prunec.passes.program import Program

_T = TypeVar("_T")
_TWO_FOUR = Pattern.parse(TWO_FOUR)


@dataclass(frozen=True, eq=False)
class Evidence:
    """The tensors of a program and what was measured on its layers and groups.

    Attributes:
        tensors: Parameters and buffers by name.
        measured: Results by statistic and place. The place of inputs, outputs and weight gradients is the name of the
            weight, that of gate gradients the name of the group.
        samples: Number of samples that were looked at.
        seed: Seed of random choices.
        layer: Name of the weight whose elements are scored.
        pattern: The pattern that they are masked to.
        mean_restored: Whether a bias gets back afterwards what that layer's outputs lose in mean, so that only the
            deviations of its inputs from their mean count.
        passes: Passes of the network over each sample: forward, and backward.
        decisions: What the training hooks of the last training decided, plain values and tensors by name.
        batch_norm_scales: Names of the parameters and buffers by which batch norms scale their channels.
        transposed: Names of the weights of transposed convolutions, which have their inputs along the first axis.
        made: What `once` made of the evidence.
    """

    tensors: "Mapping[str, Tensor]"
    measured: Mapping[tuple[Statistic, str], Any] = field(default_factory=dict)
    samples: int = 0
    seed: int = 0
    layer: str | None = None
    pattern: Pattern = _TWO_FOUR
    mean_restored: bool = False
    passes: tuple[int, int] = (0, 0)
    decisions: Mapping[str, object] = field(default_factory=dict)
    batch_norm_scales: frozenset[str] = frozenset()
    transposed: frozenset[str] = frozenset()
    made: dict[Any, Any] = field(default_factory=dict, repr=False)

    def of(self, statistic: Statistic, where: "str | Group | None" = None) -> Any:
        """The result of a statistic at a weight or a group; by default at the layer whose elements are scored.

        Raises:
            UsageError: The statistic wasn't measured there, or on other groups than this program's.
        """
        place = self.layer if where is None else where if isinstance(where, str) else where.name
        if place is None or (statistic, place) not in self.measured:
            raise UsageError(
                f"{statistic} wasn't measured at {place}.",
                hint="A criterion gets what it names in its `statistics`, for the program that they are collected on.",
            )
        result = self.measured[statistic, place]
        if where is not None and not isinstance(where, str) and len(result) != where.count:
            raise UsageError(
                f"{statistic} was measured on {len(result)} units of the group {place}, which has {where.count}.",
                hint="Collect evidence on the program that is pruned, with the policy of PruneFilters.",
            )
        return result

    def once(self, make: "Callable[[Evidence], _T]") -> _T:
        """What a function makes of all the evidence, as of all layers together; it is called the first time only."""
        if make not in self.made:
            self.made[make] = make(self)
        made: _T = self.made[make]
        return made


def needs_beyond_weights(criterion: Criterion) -> frozenset[str]:
    """The needs of a criterion beyond weights, in the words of `Criterion.needs`."""
    return frozenset(criterion.needs) - {"weights"}


def evidence_for(
    criterion: Criterion,
    program: "Program",
    given: Evidence | None,
    seed: int = 0,
    measured_later: frozenset[str] = frozenset(),
) -> Evidence:
    """The evidence that a pass gives to its criterion: what was measured, and the weights as they are now.

    The pass itself will meet the needs that are ``measured_later``.

    Raises:
        UsageError: The criterion needs more than weights and these, and no evidence is given.
    """
    from prunec.passes.cost import weighted_calls
    from prunec.passes.graphs import batch_norm_tensors, operator_name
    from prunec.passes.operators import WEIGHTED

    needs = needs_beyond_weights(criterion) - measured_later
    if "decisions" in needs and (given is None or not given.decisions):
        raise UsageError(
            f"The criterion {criterion.name} looks at what training hooks decided, and none did.",
            hint="Put a recover step with such a hook before it; in Python, Evidence(..., decisions=hook.decided).",
        )
    if needs and given is None:
        raise UsageError(
            f"The criterion {criterion.name} needs {' and '.join(sorted(needs))} on data, beyond the weights.",
            hint="Measure them with prunec.calibration.collect_evidence(program, [criterion], batches, loss), "
            "and pass the result to run(program, evidence).",
        )
    scales = batch_norm_tensors(program.graph, "weight")
    transposed = frozenset(
        weight for call, weight in weighted_calls(program.graph) if WEIGHTED[operator_name(call.target)].is_transposed
    )
    known = given or Evidence({})
    return replace(
        known, tensors=program.tensors(), seed=seed, batch_norm_scales=scales, transposed=transposed, made={}
    )
