"""The places of the options of one entry of a ledger: by the table, by what their classes state, by where it stands."""

from collections.abc import Mapping, Sequence
from typing import Any

from prunec.compiler.fairness.option_places import CARD_NAMES, STEP_PLACES
from prunec.compiler.fairness.training_options import ABSENT
from prunec.compiler.report.ledger_part import LedgerEntryPart
from prunec.passes.places import METHOD, PRUNING, RETRAINING, has_no_effect, is_place
from prunec.passes.unknown import known

#: The place of options that state none: they count as different at every place.
UNDECLARED = "undeclared"
#: The place of options without effect.
NOWHERE = ""
_RECOVER, _HOOK, _OPTIMIZER = "recover", "hooks.", "optimizer."
#: The step whose effect is on what is trained later, wherever it stands.
_FOLD = "fold-parameters"


def named_options(
    entry: LedgerEntryPart, alike: Sequence[LedgerEntryPart], start: float
) -> Mapping[str, tuple[str, Any]]:
    """Label on a card -> name and value of each option, the step's own presence first.

    Args:
        entry: The entry.
        alike: All entries of the same step; an option that only others have wasn't there in this one.
        start: Epochs of its stage before it.
    """
    is_training = entry.stage == _RECOVER
    names = dict.fromkeys(name for other in alike for name in other.options)
    options = {name: known(entry.options.get(name, ABSENT)) for name in names}
    if is_training:
        options["split"] = known(entry.split)
    prefix = "" if is_training else f"{entry.stage}."
    present = {entry.stage: (entry.stage, f"at epoch {start:g}")}
    return present | {f"{prefix}{CARD_NAMES.get(name, name)}": (name, value) for name, value in options.items()}


def place_of(entry: LedgerEntryPart, alike: Sequence[LedgerEntryPart], name: str, is_early: bool) -> str:
    """The place of an option, or of a step's presence, under the step's name.

    Args:
        entry: The entry.
        alike: All entries of the same step.
        name: Name of the option.
        is_early: Whether the entry belongs to the pruning stage.
    """
    place = _stated(entry, alike, name)
    if has_no_effect(place):
        return NOWHERE
    is_hook = entry.stage == _RECOVER and name.startswith(_HOOK)
    if is_hook and place in (METHOD, RETRAINING):
        return METHOD if is_early else RETRAINING
    if place == RETRAINING and is_early and entry.stage != _FOLD:
        return PRUNING
    return place


def _stated(entry: LedgerEntryPart, alike: Sequence[LedgerEntryPart], name: str) -> str:
    own = STEP_PLACES.get(entry.stage, {})
    if name in own:
        return own[name]
    if entry.stage == _RECOVER and (name.startswith(_OPTIMIZER) or _is_number(name.removeprefix(_HOOK))):
        return RETRAINING
    stated = [other.places[name] for other in (entry, *alike) if name in other.places]
    return stated[0] if stated and is_place(stated[0]) else UNDECLARED


def _is_number(text: str) -> bool:
    return text.isdecimal()
