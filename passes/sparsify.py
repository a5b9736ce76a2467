"""The options of the pass that masks weights to 2:4. Importing this module imports no torch."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from prunec.passes.criteria.catalogue import CRITERIA, element_criterion
from prunec.passes.criteria.evidence import Evidence, evidence_for, needs_beyond_weights
from prunec.passes.criteria.protocol import Criterion
from prunec.passes.errors import UsageError
from prunec.passes.options import CATALOGUE

if TYPE_CHECKING:
    from prunec.passes.base import PassResult
    from prunec.passes.program import Program


@dataclass(frozen=True)
class Sparsify:
    """Mask every eligible layer to 2:4; the masks stay with the program and hold in finetuning.

    Attributes:
        pattern: "2:4".
        criterion: Criterion by which weights are kept: "magnitude"; "wanda" or "sparsegpt", which look at the layers'
            inputs on calibration data (`prunec.calibration.one_shot`); the text ``NAME{option=value}`` of any criterion
            that scores single weights, or such a criterion itself. Before any finetune "sparsegpt" keeps most accuracy;
            "wanda" keeps as much as "magnitude" whose batch norms are measured anew (``re-estimate-batchnorm``).
        samples: Calibration inputs of criteria that need any.
        ignore: Globs of layers to leave dense.
    """

    pattern: Literal["2:4"] = "2:4"
    criterion: str | Criterion = field(default="magnitude", metadata={CATALOGUE: CRITERIA})
    samples: int = 128
    ignore: tuple[str, ...] = ()

    name: ClassVar[str] = "sparsify"

    def __post_init__(self) -> None:
        if self.pattern != "2:4":
            raise UsageError(f"Unknown sparsity pattern {self.pattern!r}.", hint="Known: '2:4'.")
        element_criterion(self.criterion, self.name)
        if self.samples < 2:
            raise UsageError(f"sparsify: samples must be at least 2, got {self.samples}.")

    @property
    def needs(self) -> frozenset[str]:
        """The needs of the criterion beyond weights, in the words of `Criterion.needs`."""
        return needs_beyond_weights(element_criterion(self.criterion, self.name))

    def run(self, program: "Program", evidence: Evidence | None = None) -> "PassResult":
        """Mask a program; other weights are shared with it.

        Args:
            program: The program, which stays as it is.
            evidence: Evidence for a criterion that needs more than weights, the same for all layers;
                `sparsify_by_inputs` collects that of inputs as the layers masked before yield them.

        Raises:
            UsageError: A glob of ``ignore`` matches no layer, or the criterion needs evidence and there is none.
        """
        from prunec.passes.masking import mask_layers

        criterion = element_criterion(self.criterion, self.name)
        return mask_layers(program, self.ignore, criterion, evidence_for(criterion, program, evidence))
