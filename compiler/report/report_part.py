"""The base of all parts of report.json: frozen models whose field names carry their units.

A value that is not known is an `Unknown` with its reason; the few fields in which null has a meaning of its own say so
with `NullMeans`. Unknown fields are errors; NaN and infinity cannot occur.
"""

from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Value = TypeVar("Value")


def _sorted(mapping: dict[str, Value]) -> dict[str, Value]:
    return dict(sorted(mapping.items()))


SortedDict = Annotated[dict[str, Value], AfterValidator(_sorted)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
LearningRates = tuple[tuple[float, float], ...]


class Part(BaseModel):
    """Base of every part of the report: frozen, no unknown fields, finite numbers."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )

    @classmethod
    def of(cls, *sources: object, **further: object) -> Self:
        """The part that mirrors objects: its fields are their attributes of the same names.

        Args:
            *sources: The objects; of several that have an attribute, the last counts.
            **further: Values of fields that differ. Where a part is wanted, an object does that it can mirror.
        """
        mirrored = {
            name: getattr(source, name) for source in sources for name in cls.model_fields if hasattr(source, name)
        }
        return cls.model_validate(mirrored | further, from_attributes=True)
