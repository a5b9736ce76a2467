"""The form of a network that grids are placed in."""

from prunec.passes.errors import NumericMismatchError
from prunec.passes.program import Program
from prunec.passes.quantization.attention import decompose_attention
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.quantization.equalization import equalize


def prepared(program: Program, *, equalized: bool) -> Program:
    """The same function with batch norms folded and attention in its products, and its channels equalized or not.

    Raises:
        NumericMismatchError: A weight is not finite, its batch norm folded.
    """
    whole = decompose_attention(fold_batch_norms(program).program).program
    _check_finite(whole)
    return equalize(whole).program if equalized else whole


def _check_finite(program: Program) -> None:
    layers = {layer.weight: layer.name for layer in program.layers()}
    for name, tensor in program.parameters().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            of_layer = f" of layer {layers[name]}" if name in layers else ""
            raise NumericMismatchError(
                f"{name}{of_layer} has {count} of {tensor.numel()} numbers that are not finite, for which there is no "
                "grid.",
                hint="Look at the checkpoint: a training that diverged leaves such weights, and so do the statistics "
                "of a batch norm, which is folded into the layer before it.",
            )
