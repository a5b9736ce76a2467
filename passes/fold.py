"""Options of folding: computed weights become plain ones."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from prunec.passes.base import PassResult
    from prunec.passes.program import Program


@dataclass(frozen=True)
class FoldParameters:
    """Replace weights that are computed from parameters, as by weight standardisation, by their values.

    A standardised weight mixes its input channels, so pruning them is inexact; folded, it is exact. In exchange a
    finetune then trains the folded weights. A folded weight has the name of the parameter that it was made of and
    whose shape it has. A computed weight without such a parameter stays computed.
    """

    name: ClassVar[str] = "fold-parameters"

    def run(self, program: "Program") -> "PassResult":
        """Fold the weights of convolutions and linear layers; parameters that nothing else reads are dropped."""
        from prunec.passes.folding import fold_weights

        result = fold_weights(program)
        rewritten_by = (*program.rewritten_by, *((self.name,) if result.modified else ()))
        return replace(result, program=replace(result.program, rewritten_by=rewritten_by))
