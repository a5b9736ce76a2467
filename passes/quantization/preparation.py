"""The form of a network that grids are placed in."""

from prunec.passes.program import Program
from prunec.passes.quantization.attention import decompose_attention
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.quantization.equalization import equalize


def prepared(program: Program, *, equalized: bool) -> Program:
    """The same function with batch norms folded and attention in its products, and its channels equalized or not."""
    whole = decompose_attention(fold_batch_norms(program).program).program
    return equalize(whole).program if equalized else whole
