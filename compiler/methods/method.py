"""A method of pruning as a declaration. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from prunec.compiler.recovery.hooks import load_hooks
from prunec.passes.allocation.goals import Allocation
from prunec.passes.criteria.catalogue import resolve
from prunec.passes.errors import UsageError

#: The unit that a method removes or masks.
Structure = Literal["filters", "weights"]


@dataclass(frozen=True)
class Method:
    """A published method, told by the steps that prunec makes it of; all but the name and the criterion has a default.

    Attributes:
        name: Name on the command line.
        summary: What it scores and how it chooses, in a few words.
        criterion: Text of the criterion that chooses.
        structure: "filters" are removed with all that is coupled to them, "weights" are masked one by one.
        allocation: How widths, or the shares of masks, are chosen: "auto" is one ratio everywhere for MACs, "global"
            one ranking.
        samples: Training samples that the criterion looks at, where that isn't the step's own number; 0 for that.
        pattern: What is masked together, of methods that mask, where the target asks for no 2:4.
        hooks: Training hooks of its regime, which trains before it prunes; empty for none.
        regime_share: Share of the epochs that the regime has; the rest retrains what is left.
        regime_schedule: Learning rate of the regime.
        regime_cost: Length of the regime in the paper, in words.
        level_share: Share of the weights left that each of several levels masks and trains; 0 for one level.
        level_schedule: Learning rate of every level's training, which may go back to an earlier epoch; empty for the
            recipe's.
        paper: Where its order of steps is from, where that isn't its criterion's or regime's paper.
    """

    name: str
    summary: str
    criterion: str
    structure: Structure = "filters"
    allocation: Allocation = "auto"
    samples: int = 0
    pattern: str = "elements"
    hooks: str = ""
    regime_share: float = 1 / 3
    regime_schedule: str = "constant:1e-3"
    regime_cost: str = ""
    level_share: float = 0.0
    level_schedule: str = ""
    paper: str = ""

    @property
    def flag(self) -> str:
        """The option of the command line that asks for it."""
        return f"--method {self.name}"

    def step_of(self, goal: str) -> str:
        """The step that a goal of the command line is for, such as "ratio" or "speedup".

        Raises:
            UsageError: The method masks, which makes no layer smaller.
        """
        if self.structure == "filters":
            return "prune-filters"
        if goal == "ratio":
            return "sparsify"
        raise UsageError(
            f"The method {self.name} masks weights, and --{goal.replace('_', '-')} is given: no layer becomes smaller.",
            hint="Give --ratio, the share of the weights that is masked.",
        )

    @property
    def papers(self) -> tuple[str, ...]:
        """The papers that it is from: its own, its regime's and its criterion's, where these name any."""
        named = [self.paper, *(getattr(source, "paper", "") for source in self._sources)]
        return tuple(dict.fromkeys(filter(None, named)))

    @property
    def readings(self) -> tuple[str, ...]:
        """Our reading of what the papers leave open, a sentence each."""
        return tuple(dict.fromkeys(reading for source in self._sources if (reading := getattr(source, "reading", ""))))

    @property
    def _sources(self) -> list[object]:
        """Its hooks, the criteria that these ask by, and its own."""
        hooks = load_hooks(self.hooks)
        asked = [hook.criterion for hook in hooks if hasattr(hook, "criterion")]
        return [*hooks, *map(resolve, asked), resolve(self.criterion)]

    @property
    def needs(self) -> str:
        """The data that it takes: "labels", "inputs" or "nothing"."""
        needs = frozenset(resolve(self.criterion).needs)
        if self.hooks or self.level_share or needs & {"labels", "gradients"}:
            return "labels"
        return "inputs" if needs & {"inputs", "outputs"} else "nothing"

    @property
    def cost(self) -> str:
        """What choosing costs beside the retraining, in words."""
        if self.level_share:
            return f"a training for every {100 * self.level_share:.0f} % of the weights left"
        if self.hooks:
            return (
                f"{100 * self.regime_share:.0f} % of the epochs; {self.regime_cost}"
                if self.regime_cost
                else "a training"
            )
        needs = frozenset(resolve(self.criterion).needs)
        if "gradients" in needs:
            return "forward and backward passes over the samples"
        return "forward passes over the samples" if needs & {"inputs", "outputs"} else "none"
