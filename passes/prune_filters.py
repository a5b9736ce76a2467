"""The options of the pass that prunes filters. Importing this module imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from prunec.passes.criteria.catalogue import CRITERIA, unit_criterion
from prunec.passes.criteria.evidence import Evidence, evidence_for, needs_beyond_weights
from prunec.passes.criteria.protocol import Criterion
from prunec.passes.errors import UsageError
from prunec.passes.options import CATALOGUE
from prunec.passes.policy import Attention, Grouped, Policy
from prunec.passes.ratios import Rounding, exact
from prunec.passes.seeds import check_seed

if TYPE_CHECKING:
    from prunec.passes.base import PassResult
    from prunec.passes.program import Program


@dataclass(frozen=True)
class PruneFilters:
    """Remove the least important filters with everything that is coupled to them.

    Attributes:
        ratio: Fraction of filters removed in every group, or by glob over module paths (the last match counts;
            what none matches keeps all). ``n_pruned = min(ceil(ratio n), n - 1)``, in exact arithmetic.
        speedup: Target of dense MACs over pruned MACs, instead of ratios: the nearest feasible at or above it.
        criterion: "l1", "l2" or "random"; the text ``NAME{option=value}`` of any criterion that scores or selects
            units, or such a criterion itself.
        round_to: Widths are rounded to the nearest multiple of this, in narrow layers of a halving of it.
        min_channels: Filters kept at least in every group.
        residual_streams: Whether channels that a sum of several layers shares are pruned too.
        inexact_groups: Treatment of groups under operators that mix channels ("prune" or "freeze").
        attention: "head_dim" shortens every head of attention, "heads" removes whole heads, "none" neither.
        grouped: Grouped convolutions lose whole "groups", or the same "index" in every group; "auto" takes what
            leaves more choices.
        for_module: Whether the plan will be applied to the user's own module by `apply_plan`. Of attention whole heads
            go then where each would be shortened, and what two activations are multiplied over stays: code like
            ``x.view(b, t, -1, head_dim)`` and the scale that attention takes from its width follow that.
        ignore: Globs of layers, or "stem" or "classifier", that keep their own filters; their inputs may shrink.
        freeze: Globs of layers, or "stem" or "classifier", whose weights stay untouched.
        samples: Training samples for criteria that need any.
        seed: Seed of the criterion's random choices; None is the seed of the run, 0 where the pass runs alone.
    """

    ratio: float | Mapping[str, float] | None = None
    speedup: float | None = None
    criterion: str | Criterion = field(default="l1", metadata={CATALOGUE: CRITERIA})
    round_to: int = 1
    min_channels: int = 1
    residual_streams: bool = True
    inexact_groups: Literal["prune", "freeze"] = "prune"
    attention: Attention = "head_dim"
    grouped: Grouped = "auto"
    for_module: bool = False
    ignore: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    samples: int = 128
    seed: int | None = None

    name: ClassVar[str] = "prune-filters"

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.speedup is None):
            raise UsageError("prune-filters needs either a ratio or a speedup.", hint="For example speedup=2.0.")
        if self.speedup is not None and not 1 <= self.speedup < float("inf"):
            raise UsageError(f"speedup {self.speedup} is not a factor of at least 1.", hint="2.0 halves the MACs.")
        for ratio in self.ratio.values() if isinstance(self.ratio, Mapping) else [self.ratio or 0.0]:
            exact(ratio)
        if self.round_to < 1 or self.min_channels < 1 or self.samples < 1:
            raise UsageError("round_to, min_channels and samples must be at least 1.")
        if self.inexact_groups not in ("prune", "freeze"):
            raise UsageError(f"inexact_groups is {self.inexact_groups!r}.", hint='Expected "prune" or "freeze".')
        check_seed(self.name, self.seed)
        unit_criterion(self.criterion, self.name)
        _ = self.policy

    @property
    def needs(self) -> frozenset[str]:
        """The needs of the criterion beyond weights, in the words of `Criterion.needs`."""
        return needs_beyond_weights(unit_criterion(self.criterion, self.name))

    @property
    def policy(self) -> Policy:
        """The policy of the coupling analysis, and with it of the collection of evidence."""
        shortened = self.attention == "head_dim"
        return Policy("heads" if self.for_module and shortened else self.attention, self.grouped)

    def run(self, program: "Program", evidence: Evidence | None = None) -> "PassResult":
        """Prune a program.

        Args:
            program: The program, which stays as it is.
            evidence: Evidence from `collect_evidence`, for a criterion that needs more than weights.

        Raises:
            UsageError: A glob matches nothing, ratios of one group conflict, the speed-up can't be reached, the
                criterion needs evidence and there is none, or gives what is no score.
            UnsupportedModelError: No group can be pruned.
        """
        from prunec.passes.filter_pruning import Amount, Scope, prune_filters

        criterion = unit_criterion(self.criterion, self.name)
        evidence = evidence_for(criterion, program, evidence, self.seed or 0)
        amount = Amount(self.ratio, self.speedup, Rounding(self.round_to, self.min_channels))
        scope = Scope(self.ignore, self.freeze, self.residual_streams, self.inexact_groups == "prune", self.for_module)
        return prune_filters(program, self.policy, amount, scope, criterion, evidence)
