"""The methods that prunec knows by name. Imports no torch."""

from prunec.compiler.methods.method import Method
from prunec.passes.errors import UsageError, did_you_mean

#: Learning rate of regimes that train as the dense network was, at a rate that a trained network bears.
_ONWARDS = "constant:1e-2"

_FILTERS = (
    Method("l1", "filters of the least sum of magnitudes go", "l1"),
    Method("l2", "filters of the least Euclidean norm go", "l2"),
    Method("random", "filters go by chance: the control of every other method", "random"),
    Method("max", "filters of the least largest weight go", "max"),
    Method("fpgm", "filters near the others' geometric median go", "fpgm"),
    Method(
        "batchnorm-scale",
        "filters of the least batch-norm scales go, of all layers",
        "batchnorm-scale",
        allocation="global",
    ),
    Method("taylor", "what changes the loss least goes, to first order, of all layers", "taylor", allocation="global"),
    Method("taylor-bn", "the same by the derivatives of batch norms", "taylor-bn", allocation="global"),
    Method("hrank", "filters whose maps are of the least rank go", "hrank", samples=640),
    Method(
        "provable",
        "channels of the least sensitivity go, as many as one bound allows",
        "provable",
        allocation="provable",
    ),
    Method("provable-sampled", "the same by sampling", "provable{variant=sampled}", allocation="provable"),
    Method("provable-hybrid", "the same, the surest first", "provable{variant=hybrid}", allocation="provable"),
    Method("skeletonization", "units of the least relevance go", "skeletonization", allocation="global"),
    Method("snip-filters", "filters of the least connection sensitivity go", "snip", allocation="global"),
    Method(
        "magnitude-gradient-filters",
        "filters of the least |weight x gradient| go",
        "magnitude-gradient",
        allocation="global",
    ),
    Method(
        "magnitude-activation-filters",
        "filters of the least |weight| x |input| go",
        "magnitude-activation",
        allocation="global",
    ),
    Method("ccp", "the set goes that changes the loss least, to second order", "ccp"),
    Method(
        "cc",
        "filters and singular values go together, what loses the least of the weights for its MACs first",
        "cc",
        allocation="joint",
    ),
)
_REGIMES = (
    Method(
        "sfp",
        "filters of the least norm are zeroed after every epoch and may regrow",
        "l2",
        hooks="sfp",
        regime_schedule=_ONWARDS,
        regime_cost="100 epochs in the paper",
    ),
    Method(
        "sfp-fpgm",
        "the same by distances to the others",
        "learned",
        hooks="sfp{criterion=fpgm}",
        regime_schedule=_ONWARDS,
        regime_cost="100 epochs in the paper",
    ),
    Method(
        "network-slimming",
        "a penalty shrinks batch-norm scales, the least of all go",
        "learned",
        allocation="global",
        hooks="network-slimming",
        regime_schedule=_ONWARDS,
        regime_cost="160 epochs in the paper",
    ),
    Method(
        "ssl",
        "a group lasso shrinks filters, the least of all go",
        "learned",
        allocation="global",
        hooks="ssl",
        regime_schedule=_ONWARDS,
        regime_cost="a whole training in the paper",
    ),
    Method(
        "ssl-channel",
        "the same by the weights that read a filter",
        "learned",
        allocation="global",
        hooks="ssl{structure=channel}",
        regime_schedule=_ONWARDS,
        regime_cost="a whole training in the paper",
    ),
    Method(
        "ssl-shape",
        "a group lasso shrinks positions of kernels in all filters, the least of each layer are masked",
        "magnitude",
        "weights",
        pattern="columns",
        hooks="ssl{structure=shape}",
        regime_schedule=_ONWARDS,
        regime_cost="a whole training in the paper",
    ),
    Method(
        "ssl-depth",
        "a group lasso shrinks residual branches, which may go as a whole beside filters",
        "l2",
        allocation="balanced",
        depth=True,
        hooks="ssl{structure=depth}",
        regime_schedule=_ONWARDS,
        regime_cost="a whole training in the paper",
    ),
    Method(
        "greg-1",
        "a growing penalty drives the filters of least L1 to zero",
        "learned",
        hooks="greg-1",
        regime_cost="110,010 iterations on CIFAR in the paper",
    ),
    Method(
        "greg-2",
        "a growing penalty on all filters tells which go, then drives them to zero",
        "learned",
        hooks="greg-2",
        regime_cost="110,010 iterations on CIFAR in the paper",
    ),
    Method(
        "resrep",
        "compactors behind batch norms lose rows, and are merged",
        "learned",
        allocation="global",
        hooks="resrep",
        regime_schedule="cosine:0.01",
        regime_cost="180 epochs in the paper",
    ),
    Method(
        "cnn-fcf",
        "factors of filters are driven to 0 or 1",
        "learned",
        hooks="cnn-fcf",
        regime_schedule=_ONWARDS,
        regime_cost="30 epochs in the paper",
    ),
    Method(
        "gal",
        "masks learn to fool a discriminator, those at zero go",
        "learned",
        allocation="global",
        hooks="gal",
        regime_schedule=_ONWARDS,
        regime_cost="100 epochs in the paper",
    ),
    Method(
        "dcp",
        "channels that discriminate most are taken one by one",
        "learned",
        hooks="dcp",
        regime_schedule=_ONWARDS,
        regime_cost="a stage for each extra loss in the paper",
    ),
    Method(
        "lfpc",
        "each layer learns which criterion it is pruned by",
        "learned",
        hooks="lfpc",
        regime_schedule=_ONWARDS,
        regime_cost="a training in the paper",
    ),
)
_WEIGHTS = (
    Method("magnitude", "the least magnitudes of all layers go", "magnitude", "weights", "global"),
    Method("magnitude-by-layer", "the least magnitudes of each layer go", "magnitude", "weights"),
    Method(
        "magnitude-gradient",
        "the least |weight x gradient| of all layers go",
        "magnitude-gradient",
        "weights",
        "global",
    ),
    Method(
        "magnitude-activation",
        "the least |weight| x |input| of all layers go",
        "magnitude-activation",
        "weights",
        "global",
    ),
    Method(
        "magnitude-gradient-by-layer", "the least |weight x gradient| of each layer go", "magnitude-gradient", "weights"
    ),
    Method(
        "magnitude-activation-by-layer",
        "the least |weight| x |input| of each layer go",
        "magnitude-activation",
        "weights",
    ),
    Method(
        "iterative-magnitude",
        "a fifth of the weights left goes by one threshold, level by level, each trained on",
        "magnitude",
        "weights",
        "global",
        level_share=0.2,
    ),
    Method(
        "learning-rate-rewinding",
        "the same, each level trained by the last epochs' learning rates again",
        "magnitude",
        "weights",
        "global",
        level_share=0.2,
        level_schedule="lrw",
        paper="Renda et al., Comparing Rewinding and Fine-tuning, ICLR 2020",
    ),
    Method(
        "lottery-ticket",
        "the same, the survivors back at their weights of an early epoch",
        "magnitude",
        "weights",
        "global",
        level_share=0.2,
        level_schedule="wr",
        base="both",
        paper="Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019",
    ),
    Method("random-weights", "weights go by chance: the control of masks", "random", "weights"),
    Method(
        "snip",
        "weights of the least connection sensitivity of all layers go, before any training",
        "snip",
        "weights",
        "global",
        base="random",
    ),
    Method("obd", "weights of the least saliency by the diagonal of the Hessian go", "obd", "weights"),
    Method("obs", "weights of the least saliency go, and the others make up for them", "obs", "weights"),
    Method("wanda", "the least magnitudes times norms of inputs go", "wanda", "weights"),
    Method("sparsegpt", "what the others best make up for goes, and they do", "sparsegpt", "weights"),
)
METHODS: dict[str, Method] = {method.name: method for method in (*_FILTERS, *_REGIMES, *_WEIGHTS)}


def method_of(name: str) -> Method:
    """The method of a name.

    Raises:
        UsageError: There is none.
    """
    if name not in METHODS:
        raise UsageError(f"There is no method {name!r}.", hint=did_you_mean(name, list(METHODS)))
    return METHODS[name]
