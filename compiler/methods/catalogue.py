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
_REGIMES = (
    Method(
        "resrep", "compactors behind layers lose rows to a lasso and are merged", "learned", allocation="global",
        hooks="resrep", regime_schedule="cosine:0.01", regime_cost="180 epochs of ImageNet in the paper",
    ),
    Method(
        "cnn-fcf", "factors of filters are drawn to 0 and 1 by multipliers", "learned",
        hooks="cnn-fcf", regime_schedule="cosine:0.01", regime_cost="30 epochs of ImageNet in the paper",
    ),
    Method(
        "lfpc", "each layer's criterion is learned on held-out data", "learned",
        hooks="lfpc", regime_schedule="cosine:0.01",
    ),
    Method(
        "gal", "soft masks learn to deceive a discriminator, without labels", "learned", allocation="global",
        hooks="gal", regime_schedule="cosine:0.01", regime_cost="100 epochs of CIFAR-10 in the paper",
    ),
    Method(
        "dcp", "channels are chosen greedily by what tells classes apart", "learned",
        hooks="dcp", regime_schedule="cosine:0.01", regime_cost="a stage for each of 2 or 3 pivots in the paper",
    ),
)  # fmt: skip
METHODS: dict[str, Method] = {method.name: method for method in (*_FILTERS, *_WEIGHTS, *_REGIMES)}


def method_of(name: str) -> Method:
    """The method of a name.

    Raises:
        UsageError: There is none.
    """
    if name not in METHODS:
        raise UsageError(f"There is no method {name!r}.", hint=did_you_mean(name, list(METHODS)))
    return METHODS[name]
