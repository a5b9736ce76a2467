"""The options of the pass that prunes filters. Importing this module imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from prunec.passes.allocation.comparability import check_compares
from prunec.passes.allocation.goals import ALLOCATIONS, GOALS, Allocation, Goals
from prunec.passes.allocation.sizes import ChosenSizes
from prunec.passes.criteria.catalogue import CRITERIA, criterion_text, unit_criterion
from prunec.passes.criteria.evidence import Evidence, needs_beyond_weights
from prunec.passes.criteria.protocol import Criterion
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.options import CATALOGUE
from prunec.passes.policy import Attention, Grouped, Policy
from prunec.passes.ratios import Rounding, exact
from prunec.passes.seeds import check_seed

if TYPE_CHECKING:
    from prunec.passes.base import PassResult
    from prunec.passes.costs.cost_model import CostModel
    from prunec.passes.program import Program

#: What becomes of groups under operators that mix channels.
InexactGroups = Literal["prune", "freeze"]


@dataclass(frozen=True)
class PruneFilters:
    """Remove the least important filters with everything that is coupled to them.

    Attributes:
        ratio: Fraction of filters removed in every group, or by glob over module paths (the last match counts;
            what none matches keeps all). ``n_pruned = min(ceil(ratio n), n - 1)``, in exact arithmetic. With an
            ``allocation`` that chooses widths, one ratio asks for the MACs that it would leave in every group.
        speedup: A goal instead of ratios: dense MACs over pruned MACs, at least. Of several goals all are met.
        latency_speedup: A goal: dense milliseconds over pruned milliseconds, at least, by a cost model's word.
        latency_ms: A goal: milliseconds of one inference, at most, by a cost model's word.
        parameters: A goal: number of trained scalars, at most.
        size_mb: A goal: size of the trained scalars in float32, at most, in megabytes of 10^6 bytes.
        allocation: How widths are chosen for goals. "uniform" prunes by one ratio everywhere, then takes single steps
            back; "global" ranks the units of all groups together; "greedy" takes the steps that lose the least
            importance for what they save; "balanced" likewise, but the shares that layers keep are multiplied. By
            "provable" every group has the units that the criterion says it needs for one error. By
            "joint" layers are decomposed as well, and widths and ranks are chosen together for one goal in MACs, with
            criterion="cc". "auto" is "balanced" with ``depth``, "provable" with such a criterion, "balanced" where
            latency is a goal and the criterion scores units, else "uniform". Groups are compared by scores over their
            Euclidean norm.
        plan: Path of a pruning plan (plan.json) for this network, instead of ratios and goals: it says which filters
            stay, and neither the criterion nor the options that choose groups and widths count.
        depth: Whether whole residual branches may go for the goals, where widths alone lose more importance. The
            criterion must score units, by weights only.
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
    latency_speedup: float | None = None
    latency_ms: float | None = None
    parameters: int | None = None
    size_mb: float | None = None
    allocation: Allocation = "auto"
    plan: str = ""
    depth: bool = False
    criterion: str | Criterion = field(default="l1", metadata={CATALOGUE: CRITERIA})
    round_to: int = 1
    min_channels: int = 1
    residual_streams: bool = True
    inexact_groups: InexactGroups = "prune"
    attention: Attention = "head_dim"
    grouped: Grouped = "auto"
    for_module: bool = False
    ignore: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    samples: int = 128
    seed: int | None = None

    name: ClassVar[str] = "prune-filters"

    def __post_init__(self) -> None:
        if (self.ratio is not None) + bool(self.goals.given) + bool(self.plan) != 1:
            raise UsageError(
                f"prune-filters needs either a ratio or goals ({', '.join(GOALS)}), or a plan.",
                hint="For example speedup=2.0.",
            )
        if self.allocation not in ALLOCATIONS:
            raise UsageError(
                f"allocation is {self.allocation!r}.", hint=did_you_mean(str(self.allocation), ALLOCATIONS)
            )
        if isinstance(self.ratio, Mapping) and self.allocation not in ("auto", "uniform"):
            raise UsageError(
                f"allocation={self.allocation} chooses widths, and ratios by layer give them.",
                hint="Leave out one of the two, or give one ratio: widths are then chosen for the MACs that it leaves.",
            )
        if self.depth and (not self.chooses_widths or self.allocation == "uniform"):
            raise UsageError(
                "depth=true weighs branches against widths for goals, by importance.",
                hint="Give a goal such as latency_speedup=2.0, or one ratio with allocation=balanced; no plan, and no "
                "allocation=uniform.",
            )
        if self.allocation == "joint" and (self.plan or self.depth or self.goals.given.keys() - {"speedup"}):
            raise UsageError(
                "allocation=joint chooses widths and ranks for multiply-accumulates.",
                hint="Give it speedup=2.0 or one ratio, no other goals, no depth and no plan.",
            )
        for ratio in self.ratio.values() if isinstance(self.ratio, Mapping) else [self.ratio or 0.0]:
            exact(ratio)
        if self.round_to < 1 or self.min_channels < 1 or self.samples < 1:
            raise UsageError("round_to, min_channels and samples must be at least 1.")
        if self.inexact_groups not in get_args(InexactGroups):
            raise UsageError(f"inexact_groups is {self.inexact_groups!r}.", hint='Expected "prune" or "freeze".')
        check_seed(self.name, self.seed)
        check_compares(self.allocation, unit_criterion(self.criterion, self.name), depth=self.depth)
        _ = self.policy

    @property
    def goals(self) -> Goals:
        """The goals; none is given beside a ratio."""
        return Goals(self.speedup, self.latency_speedup, self.latency_ms, self.parameters, self.size_mb)

    @property
    def chooses_widths(self) -> bool:
        """Whether widths are chosen for goals, or for the MACs that one ratio would leave."""
        is_allocated = self.ratio is not None and self.allocation not in ("auto", "uniform")
        return bool(self.goals.given) or is_allocated

    @property
    def ratio_everywhere(self) -> float | None:
        """The ratio that every group is pruned by; None where ratios differ or widths are chosen."""
        return self.ratio if isinstance(self.ratio, int | float) and not self.chooses_widths else None

    @property
    def rounding(self) -> Rounding:
        """The rounding of the widths."""
        return Rounding(self.round_to, self.min_channels)

    @property
    def needs(self) -> frozenset[str]:
        """The needs of the criterion beyond weights, in the words of `Criterion.needs`; none where a plan decides."""
        return frozenset() if self.plan else needs_beyond_weights(unit_criterion(self.criterion, self.name))

    @property
    def decided_by(self) -> str:
        """What decides which filters stay: the text of the criterion, or "plan"."""
        return "plan" if self.plan else criterion_text(self.criterion)

    @property
    def policy(self) -> Policy:
        """The policy of the coupling analysis, and with it of the collection of evidence."""
        shortened = self.attention == "head_dim"
        return Policy("heads" if self.for_module and shortened else self.attention, self.grouped)

    @property
    def needs_costs(self) -> bool:
        """Whether a cost model must say how long a network takes."""
        return self.goals.needs_costs

    def check_countable(self) -> None:
        """Refuse options by which it takes more than a program and its weights to tell which units stay.

        Raises:
            UsageError: They have a goal in time, ``depth`` or a plan.
        """
        if self.plan or self.depth or self.needs_costs:
            what = "a plan" if self.plan else "depth" if self.depth else "a goal in time"
            raise UsageError(
                f"A training that chooses filters works towards a ratio or MACs, and prune-filters has {what}.",
                hint="Give prune-filters a ratio, or a goal such as speedup=2.0 or parameters=1000000.",
            )

    def run(
        self,
        program: "Program",
        evidence: Evidence | None = None,
        costs: "CostModel | None" = None,
        sizes: ChosenSizes | None = None,
    ) -> "PassResult":
        """Prune a program.

        Args:
            program: The program, which stays as it is.
            evidence: Evidence from `collect_evidence`, for a criterion that needs more than weights.
            costs: The cost model that tells the milliseconds of the program at any widths. With one, no width is
                chosen for a goal where a wider one is as fast.
            sizes: The sizes to prune to, that were chosen before for the same goals or plan; without them they are
                chosen.

        Raises:
            UsageError: A glob matches nothing, ratios of one group conflict, a goal can't be reached, latency is a
                goal and there is no cost model, the criterion needs evidence and there is none, or gives what is no
                score.
            InputError: The cost model or the plan doesn't fit the program.
            UnsupportedModelError: No group can be pruned.
        """
        from prunec.passes.filter_pruning import prune_filters

        if self.plan and sizes is None:
            from prunec.passes.plan import PruningPlan
            from prunec.passes.planned_pruning import prune_by_plan

            return prune_by_plan(program, PruningPlan.read(Path(self.plan)))
        return prune_filters(program, self, evidence, costs, sizes)
