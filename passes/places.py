"""The place of an option in a comparison of two runs: what they can't share any more where the option differs.

Steps, criteria and training hooks state the places of their options in a class attribute, by the name of the option:

    places: ClassVar[Mapping[str, str]] = {"order": METHOD, "progress": without_effect("it only prints")}

The name of a step itself, or of a hook, may stand there too, for its presence. Options without a stated place count as
different at every place. Importing this module imports nothing.
"""

from typing import Final

TASK: Final = "task"
"""The data, what is done to them, or the metric."""
COMPRESSION: Final = "compression"
"""What kind of structure is removed."""
BASE: Final = "base"
"""The dense weights."""
RETRAINING: Final = "retraining"
"""How a network is trained; of a training before anything was removed, the pruning stage, or with a hook the method."""
PRUNING: Final = "pruning"
"""What the pruning itself costs."""
METHOD: Final = "method"
"""What is compared: which weights are removed, by which criterion."""
PLACES: Final = (TASK, COMPRESSION, BASE, RETRAINING, PRUNING, METHOD)
_WITHOUT_EFFECT: Final = "without effect: "


def without_effect(reason: str) -> str:
    """The place of an option that changes nothing in what is compared.

    Args:
        reason: Why, in words that a reader of the comparison understands.

    Raises:
        ValueError: There is no reason.
    """
    if not reason:
        raise ValueError("an option without effect needs a reason")
    return _WITHOUT_EFFECT + reason


def has_no_effect(place: str) -> bool:
    """Whether a stated place says that the option is without effect, with a reason."""
    return place.startswith(_WITHOUT_EFFECT) and len(place) > len(_WITHOUT_EFFECT)


def is_place(place: object) -> bool:
    """Whether this is one of the places, or says of an option that it is without effect."""
    return isinstance(place, str) and (place in PLACES or has_no_effect(place))
