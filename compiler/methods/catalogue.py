"""The methods that prunec knows by name. Imports no torch."""

from prunec.compiler.methods.method import Method
from prunec.passes.errors import UsageError, did_you_mean

_FILTERS = (
    Method("l1", "filters of the least sum of magnitudes go", "l1"),
    Method("l2", "filters of the least Euclidean norm go", "l2"),
    Method("random", "filters go by chance: the control of every other method", "random"),
)
_WEIGHTS = (
    Method("magnitude", "the least magnitudes go", "magnitude", "weights"),
    Method("wanda", "the least magnitudes times norms of inputs go", "wanda", "weights"),
    Method("sparsegpt", "what the others best make up for goes, and they do", "sparsegpt", "weights"),
)
METHODS: dict[str, Method] = {method.name: method for method in (*_FILTERS, *_WEIGHTS)}


def method_of(name: str) -> Method:
    """The method of a name.

    Raises:
        UsageError: There is none.
    """
    if name not in METHODS:
        raise UsageError(f"There is no method {name!r}.", hint=did_you_mean(name, list(METHODS)))
    return METHODS[name]
