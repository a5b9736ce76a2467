"""A step that looks at inputs: how many activations of each layer are zero. It leaves the network as it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.compiler.pipeline import StepKind, needs_inputs
from prunec.passes.places import without_effect

if TYPE_CHECKING:
    from prunec.compiler.facts import StepInput, StepOutput


@dataclass(frozen=True)
class ActivationSparsity:
    """Measure the share of zeros in the outputs of every layer.

    Attributes:
        samples: Number of training inputs.
    """

    samples: int = 64

    name: ClassVar[str] = "activation-sparsity"
    places: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("activation-sparsity", "samples"), without_effect("it measures")
    )


def run(options: ActivationSparsity, given: "StepInput") -> "StepOutput":
    """Measure on the network as the steps before left it."""
    from prunec.calibration import collect_evidence
    from prunec.compiler.facts import StepCost, StepOutput
    from prunec.passes.criteria import Activation

    @dataclass(frozen=True)
    class Zeros:
        """What is measured, as a criterion says it."""

        name: ClassVar[str] = "zeros"
        needs: ClassVar[frozenset[str]] = frozenset({"outputs"})
        statistics: ClassVar[tuple[Activation, ...]] = (Activation("zeros"),)

    evidence = collect_evidence(given.program, [Zeros()], given.batches(options.samples))
    layers = {layer.name: layer.weight for layer in given.program.layers()}
    shares = {name: evidence.of(Activation("zeros"), weight).mean().item() for name, weight in layers.items()}
    figures = {"samples": evidence.samples, "mean": sum(shares.values()) / len(shares), "by_layer": shares}
    return StepOutput(given.program, modified=False, figures=figures, cost=StepCost(samples=evidence.samples))


STEP = StepKind(
    name="activation-sparsity",
    options=f"{__name__}:ActivationSparsity",
    runs=f"{__name__}:run",
    summary="count the zeros among activations",
    needs=needs_inputs,
)
