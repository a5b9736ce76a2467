"""Control arms by name. Imports nothing, so that the CLI starts fast."""

CONTROLS: dict[str, str] = {
    "scratch-e": "the pruned architecture trained from random weights, for the epochs of dense training and recovery",
    "scratch-b": "the pruned architecture trained from random weights, for as many operations",
    "dense": "the dense network, retrained as the pruned one is",
    "random": "filters, or where none are pruned weights, chosen at random, retrained as the pruned network is",
    "off-grids": "the run itself, retrained without the training hook quantize: what training on grids brings",
}
