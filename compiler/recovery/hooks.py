"""Training hooks by name: code that takes part in a training without being part of prunec.

A hook is declared here, as a frozen dataclass of its options that needs no torch. What runs is a `RunningHook`, which
the declaration makes when a training starts.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.errors import UsageError
from prunec.passes.notation import parse_items
from prunec.passes.options import is_frozen, named_thing
from prunec.passes.plugins import Catalogue

if TYPE_CHECKING:
    from prunec.compiler.recovery.running_hook import RunningHook, TrainingContext
    from prunec.passes.prune_filters import PruneFilters

#: The hooks that can be asked for by name: prunec's own, and those of other packages.
HOOKS = Catalogue(
    "training hook",
    "prunec.training_hooks",
    {
        "cnn-fcf": "prunec.compiler.recovery.regimes.cnn_fcf:CnnFcf",
        "dcp": "prunec.compiler.recovery.regimes.dcp:Dcp",
        "gal": "prunec.compiler.recovery.regimes.gal:Gal",
        "greg-1": "prunec.compiler.recovery.regimes.greg:Greg1",
        "greg-2": "prunec.compiler.recovery.regimes.greg:Greg2",
        "lfpc": "prunec.compiler.recovery.regimes.lfpc:Lfpc",
        "network-slimming": "prunec.compiler.recovery.regimes.network_slimming:NetworkSlimming",
        "quantize": "prunec.compiler.recovery.quantize_hook:Quantize",
        "resrep": "prunec.compiler.recovery.regimes.resrep:ResRep",
        "sfp": "prunec.compiler.recovery.regimes.sfp:Sfp",
        "ssl": "prunec.compiler.recovery.regimes.ssl:Ssl",
    },
)


@dataclass(frozen=True)
class TrainingHook(ABC):
    """A hook as a recipe asks for it: derive a frozen dataclass whose fields are its options.

    Packages register the derived class as an entry point of the group ``prunec.training_hooks``, under its ``name``.

    Attributes:
        name: Name in recipes.
        prepares_pruning: Whether the hook readies a network for the pruning behind its training: such a training is
            refused without one, and where it keeps other weights than those of its last step; control arms go without
            the hook.
    """

    name: ClassVar[str]
    prepares_pruning: ClassVar[bool] = False

    @property
    def held_out_fraction(self) -> float:
        """Share of the training data that is set aside for this hook and not trained on, from 0 to below 1."""
        return 0.0

    def check_pruning(self, pruning: "PruneFilters | None") -> None:  # noqa: B027 - most hooks need none
        """Refuse, before any work, a pruning of filters that the hook can't ready a network for.

        ``pruning`` is the next one behind the training; None where there is none.
        """

    @abstractmethod
    def start(self, training: "TrainingContext") -> "RunningHook":
        """The part of the hook that acts in one training, which keeps ``training``."""


def load_hooks(hooks: str | tuple[TrainingHook, ...]) -> tuple[TrainingHook, ...]:
    """The hooks that a recipe names, in its order.

    Args:
        hooks: ``NAME{option=value} NAME2``, or the hooks themselves.

    Raises:
        UsageError: The text can't be read, a hook or an option is unknown, or a value is none that the option can have.
        MissingDependencyError: The package of a hook can't be imported.
    """
    loaded = [named_thing(HOOKS, item) for item in parse_items(hooks)] if isinstance(hooks, str) else hooks
    for hook in loaded:
        if not (isinstance(hook, TrainingHook) and is_frozen(hook)):
            raise UsageError(
                f"recover: hooks must be text or training hooks, got {hook!r}.",
                hint="A hook is a frozen dataclass derived from prunec.compiler.recovery.TrainingHook.",
            )
        with HOOKS.blame(hook.name):
            share: object = hook.held_out_fraction
        if not (isinstance(share, int | float) and 0 <= share < 1):
            raise UsageError(
                f"The training hook {hook.name} asks for {share!r} of the training data: expected a number of at least "
                "0 and below 1."
            )
    return tuple(loaded)
