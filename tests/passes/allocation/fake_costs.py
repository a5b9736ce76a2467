"""A cost model of no device: layers in blocks of 16 channels, and a launch each."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prunec.passes.costs.cost_model import CostKey, CostSource
from prunec.passes.costs.workload import Work

_KEY = CostKey("cpu", "no processor", "none 1.0", 1, 1)


@dataclass(frozen=True)
class BlockCosts:
    """Milliseconds by blocks of input and output channels at every place of the output.

    Attributes:
        block: Channels of a block; 1 has no plateaus.
        launch_ms: Time of every layer, however narrow.
        block_ms: Time of a block at one place.
    """

    block: int = 16
    launch_ms: float = 0.01
    block_ms: float = 1e-4
    key: CostKey = _KEY
    source: CostSource = "roofline"
    error: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def plain(self) -> "BlockCosts":
        return self

    def layer_ms(self, work: Work) -> NDArray[np.float64]:
        places = work.writes / np.maximum(work.out_channels, 1)
        blocks = np.ceil(work.in_channels / self.block) * np.ceil(work.out_channels / self.block)
        return self.launch_ms + self.block_ms * blocks * places

    def network_ms(self, work: Work) -> NDArray[np.float64]:
        total: NDArray[np.float64] = self.layer_ms(work).sum(axis=-1)
        return total
