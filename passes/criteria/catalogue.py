"""Criteria by name and by text, and the steps that can use them."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prunec.passes.criteria.protocol import (
    NEED_OF_SOURCE,
    NEEDS,
    Criterion,
    ScoresElements,
    ScoresUnits,
    SelectsUnits,
    Statistic,
)
from prunec.passes.errors import UsageError
from prunec.passes.notation import parse_items
from prunec.passes.options import is_frozen, named_text, named_thing, spelled_name
from prunec.passes.plugins import Catalogue

CRITERIA = Catalogue(
    "criterion",
    "prunec.criteria",
    {
        "l1": "prunec.passes.criteria.filters:L1",
        "l2": "prunec.passes.criteria.filters:L2",
        "random": "prunec.passes.criteria.filters:Random",
        "learned": "prunec.passes.criteria.learned:Learned",
        "magnitude": "prunec.passes.criteria.elements:Magnitude",
        "wanda": "prunec.passes.criteria.elements:Wanda",
        "sparsegpt": "prunec.passes.criteria.elements:SparseGPT",
        "batchnorm-scale": "prunec.passes.criteria.batchnorm_scale:BatchNormScale",
        "cc": "prunec.passes.criteria.cc:CC",
        "ccp": "prunec.passes.criteria.ccp:CCP",
        "fpgm": "prunec.passes.criteria.fpgm:FPGM",
        "hrank": "prunec.passes.criteria.hrank:HRank",
        "magnitude-activation": "prunec.passes.criteria.magnitude_activation:MagnitudeActivation",
        "magnitude-gradient": "prunec.passes.criteria.magnitude_gradient:MagnitudeGradient",
        "max": "prunec.passes.criteria.max:LargestWeight",
        "obd": "prunec.passes.criteria.obd:OBD",
        "obs": "prunec.passes.criteria.obs:OBS",
        "provable": "prunec.passes.criteria.provable:Provable",
        "skeletonization": "prunec.passes.criteria.skeletonization:Skeletonization",
        "snip": "prunec.passes.criteria.snip:Snip",
        "taylor": "prunec.passes.criteria.taylor:Taylor",
        "taylor-bn": "prunec.passes.criteria.taylor:TaylorBN",
    },
)


def resolve(criterion: str | Criterion) -> Criterion:
    """The criterion of a text ``NAME{option=value}``; an object is taken as it is.

    Raises:
        UsageError: There is no such criterion or option, or the object is none.
        MissingDependencyError: The package that brings it can't be imported.
    """
    if isinstance(criterion, str):
        items = parse_items(criterion, "criterion")
        if len(items) != 1:
            raise UsageError(f"The criterion {criterion!r} is not one name.", hint="For example l1, or NAME{option=1}.")
        criterion = named_thing(CRITERIA, items[0])
    if isinstance(criterion, type) or not isinstance(criterion, Criterion):
        raise UsageError(
            f"The criterion is {criterion!r}: expected a name, or an object with a name and needs.",
            hint=f"Known: {', '.join(CRITERIA.names())}; a class of one's own is given as an object, CLASS().",
        )
    if not is_frozen(criterion):
        raise UsageError(
            f"The criterion {criterion.name} is no frozen dataclass.", hint="Make it one: @dataclass(frozen=True)."
        )
    with blame(criterion):
        _check_needs(criterion)
    return criterion


def _check_needs(criterion: Criterion) -> None:
    if unknown := sorted(set(criterion.needs) - NEEDS):
        known = ", ".join(sorted(NEEDS))
        raise UsageError(f"The criterion {criterion.name} needs {', '.join(unknown)}.", hint=f"Known: {known}.")
    for statistic in statistics_of([criterion]):
        need = NEED_OF_SOURCE[statistic.looks_at]
        if need not in criterion.needs:
            raise UsageError(f"The criterion {criterion.name} measures {statistic}: its needs must name {need!r}.")


def statistics_of(criteria: Iterable[Criterion]) -> tuple[Statistic, ...]:
    """The statistics that criteria want measured; equal ones count once."""
    return tuple(dict.fromkeys(s for criterion in criteria for s in getattr(criterion, "statistics", ())))


def criterion_text(criterion: str | Criterion) -> str:
    """The text of a criterion in recipes, ``NAME{option=value}``; a text is given back as it is."""
    return criterion if isinstance(criterion, str) else named_text(CRITERIA, criterion)


def blame(thing: Criterion | Statistic) -> AbstractContextManager[None]:
    """Say of errors within that they are this criterion's or statistic's (`Catalogue.blame`), unless it is prunec's."""
    is_own = type(thing).__module__.startswith("prunec.")
    return nullcontext() if is_own else CRITERIA.blame(spelled_name(CRITERIA, thing))


def unit_criterion(criterion: str | Criterion, step: str) -> ScoresUnits | SelectsUnits:
    """A criterion that prune-filters can use; ``step`` is named in messages.

    Raises:
        UsageError: `resolve` refuses the criterion, or it is of another kind.
    """
    resolved = resolve(criterion)
    if not isinstance(resolved, ScoresUnits | SelectsUnits):
        raise _wrong_kind(resolved, step, "units of coupled groups: it has neither score nor select")
    return resolved


def element_criterion(criterion: str | Criterion, step: str) -> ScoresElements:
    """A criterion that sparsify can use; arguments and errors are those of `unit_criterion`."""
    resolved = resolve(criterion)
    if not isinstance(resolved, ScoresElements):
        raise _wrong_kind(resolved, step, "single weights: it has no score_elements")
    return resolved


def _wrong_kind(criterion: Criterion, step: str, expected: str) -> UsageError:
    uses: dict[str, Any] = {
        "units of coupled groups, for prune-filters": ScoresUnits | SelectsUnits,
        "single weights, for sparsify": ScoresElements,
    }
    kinds = [use for use, protocol in uses.items() if isinstance(criterion, protocol)]
    return UsageError(
        f"{step}: the criterion {criterion.name} is not one of {expected}.",
        hint=f"It is one of {' and '.join(kinds)}." if kinds else "It has none of the methods of a criterion.",
    )
