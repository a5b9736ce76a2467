"""By which optimizer and up to which learning rate a small vision transformer is best retrained.

It is trained by AdamW on the example's images, half of its operations are pruned, and the default rate of AdamW must
come within a point of the best. Run from the top folder, which takes a minute on one core:
python -m benchmarks.transformer_rates
"""

from pathlib import Path

import torch

from benchmarks.tables import finish
from prunec.calibration.config import DataConfig
from prunec.calibration.data import load_data
from prunec.compiler.recovery.recover import Recover, recover
from prunec.passes import PruneFilters, capture
from prunec.runtime.evaluate import evaluate
from tests.architectures.vit import ViT

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist"
DATA = DataConfig(
    "npz:fashion_mnist.npz", "npz:fashion_mnist.npz", (0.286,), (0.353,), ("flip", "shift:1"), limit_test=2000
)
DENSE = Recover(epochs=12, schedule="cosine:0.001", optimizer="adamw", weight_decay=0.05)
#: The default of both optimizers at half the MACs comes first; SGD also at AdamW's rate.
RATES = (("adamw", 5e-4), ("adamw", 1e-4), ("adamw", 2e-3), ("adamw", 1e-2), ("sgd", 5e-2), ("sgd", 5e-4))
EPOCHS = 4


class Grey(torch.nn.Module):
    """A transformer for images of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.network = ViT(size=28, patch=7, width=48, depth=2, heads=4, classes=10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images.expand(-1, 3, -1, -1))
        return logits


def main() -> None:
    torch.manual_seed(0)
    data = load_data(DATA, EXAMPLE, seed=0)
    dense = recover(capture(Grey(), (torch.zeros(2, 1, 28, 28),)), DENSE, data).program
    pruned = PruneFilters(speedup=2.0).run(dense).program
    rows = [
        (what, "", percent(evaluate(p, data.test.batches(500)))) for what, p in (("dense", dense), ("pruned", pruned))
    ]
    reached = {}
    for optimizer, rate in RATES:
        options = Recover(epochs=EPOCHS, schedule=f"clr:{rate:g}", optimizer=optimizer)
        result = recover(pruned, options, data)
        reached[optimizer, rate] = result.curve[result.best_epoch - 1].test
        rows.append((optimizer, f"{rate:g}", percent(reached[optimizer, rate])))
    default, best = reached[RATES[0]], max(reached.values())
    missed = [] if default >= best - 0.01 else [f"the default reached {percent(default)}, another {percent(best)}"]
    columns = ("retrained by", "up to the rate", "top-1")
    finish(f"A vision transformer with half of its MACs, after {EPOCHS} epochs", columns, rows, missed)


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


if __name__ == "__main__":
    main()
