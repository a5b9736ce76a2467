"""The options of the pass that masks weights. Importing this module imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.criteria.catalogue import CRITERIA, element_criterion
from prunec.passes.criteria.evidence import Evidence, evidence_for, needs_beyond_weights
from prunec.passes.criteria.protocol import Criterion
from prunec.passes.errors import UsageError
from prunec.passes.options import CATALOGUE
from prunec.passes.patterns.pattern import TWO_FOUR, Pattern
from prunec.passes.patterns.rule import MaskAllocation, MaskRule
from prunec.passes.seeds import check_seed

if TYPE_CHECKING:
    from prunec.passes.base import PassResult
    from prunec.passes.patterns.eligibility import LayerEligibility
    from prunec.passes.program import Program


@dataclass(frozen=True)
class Sparsify:
    """Mask every layer that can carry the pattern; the masks stay with the program and hold in finetuning.

    What is masked already stays masked. Nothing but 2:4 becomes faster by it (`Pattern.gain`).

    Attributes:
        pattern: The units that are masked: "2:4" or another "N:M", "elements", "rows", "channels", "columns",
            "block:4x4" (`prunec.passes.patterns.pattern.Pattern`). The score of a unit is the sum over its weights.
        criterion: Criterion by which weights are kept: "magnitude"; "wanda" or "sparsegpt", which look at the layers'
            inputs on calibration data (`prunec.calibration.one_shot`); the text ``NAME{option=value}`` of any criterion
            that scores single weights, or such a criterion itself. Before any finetune "sparsegpt" keeps most accuracy;
            "wanda" keeps as much as "magnitude" whose batch norms are measured anew (``re-estimate-batchnorm``).
        ratio: Share of the weights that is masked, counted over the layers that can carry the pattern; whole units go
            until it is reached. N:M gives it by itself.
        ratio_of_rest: The share of the weights left that is masked instead: levels of iterative pruning.
        until: Share of the weights beyond which ``ratio_of_rest`` masks no more, so that the last level takes what is
            left for it.
        allocation: "layer" masks the share in each layer, of which one unit stays; "global" ranks the units of all
            layers together, by one threshold.
        samples: Training samples that criteria look at which need any.
        ignore: Globs of layers, or "stem" or "classifier", to leave dense; by default none.
        seed: Seed of the criterion's random choices; None for the seed of the run, which is 0 where the pass runs
            alone.
    """

    pattern: str = TWO_FOUR
    criterion: str | Criterion = field(default="magnitude", metadata={CATALOGUE: CRITERIA})
    ratio: float | None = None
    ratio_of_rest: float | None = None
    until: float | None = None
    allocation: MaskAllocation = "layer"
    samples: int = 128
    ignore: tuple[str, ...] = ()
    seed: int | None = None

    name: ClassVar[str] = "sparsify"

    def __post_init__(self) -> None:
        _ = self.rule  # refuses what can't be
        element_criterion(self.criterion, self.name)
        if self.samples < 2:
            raise UsageError(f"sparsify: samples must be at least 2, got {self.samples}.")
        check_seed(self.name, self.seed)

    @property
    def rule(self) -> MaskRule:
        """How masks follow from scores."""
        return MaskRule(Pattern.parse(self.pattern), self.ratio, self.ratio_of_rest, self.until, self.allocation)

    @property
    def needs(self) -> frozenset[str]:
        """The needs of the criterion beyond weights, in the words of `Criterion.needs`."""
        return needs_beyond_weights(element_criterion(self.criterion, self.name))

    @property
    def is_sequential(self) -> bool:
        """Whether a layer's inputs are looked at as the layers masked before yield them.

        One threshold over all layers needs the scores of all of them first: those of the network as it comes in.
        """
        return "inputs" in self.needs and self.allocation == "layer"

    def layers(self, program: "Program") -> "list[LayerEligibility]":
        """Every weighted layer of a program, with the reason where it isn't masked."""
        from prunec.passes.patterns.eligibility import eligibility

        return eligibility(program, self.ignore, self.rule.pattern, by_inputs="inputs" in self.needs)

    def run(
        self, program: "Program", evidence: Evidence | None = None, counts: Mapping[str, int] | None = None
    ) -> "PassResult":
        """Mask a program; other weights are shared with it.

        Args:
            program: The program, which stays as it is.
            evidence: Evidence for a criterion that needs more than weights, the same for all layers;
                `sparsify_by_inputs` collects that of inputs as the layers masked before yield them.
            counts: Number of weights to mask in each layer, by the weight, in place of shares; whole units go until it
                is reached. N:M gives it by itself.

        Raises:
            UsageError: A glob of ``ignore`` matches no layer, the criterion needs evidence and there is none, or a
                layer is masked by another pattern already.
        """
        from prunec.passes.masking import mask_layers

        criterion = element_criterion(self.criterion, self.name)
        evidence = evidence_for(criterion, program, evidence, self.seed or 0)
        return mask_layers(program, self.rule, self.ignore, criterion, evidence, counts)
