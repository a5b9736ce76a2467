"""The protocol of cost models: plain values that tell the milliseconds of every layer at any widths."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from prunec.passes.costs.workload import Work

#: Where a model's milliseconds come from: measurements of variants of the network, or a device's data sheet.
CostSource = Literal["measured", "roofline"]


@dataclass(frozen=True)
class CostKey:
    """What a cost model holds for.

    Attributes:
        target: The target in its full form, such as "a100-2:4-fp16".
        hardware: The processor or GPU, as the machine names it; the device's title where none was there.
        engine: Library and version, as in "onnxruntime 1.27.0"; empty for a roofline.
        threads: Number of CPU threads; None where they don't matter.
        batch: Number of samples at once.
        dims: Sizes that the engine takes, as in "batch=1:8:32"; empty where it takes any.
    """

    target: str
    hardware: str
    engine: str
    threads: int | None
    batch: int
    dims: str = ""


class CostModel(Protocol):
    """Milliseconds of a network's layers as functions of their widths.

    Attributes:
        key: What it holds for.
        source: Whether its figures are measured or predicted from a data sheet.
        error: Mean relative error on variants that it was not fitted to, by what was compared: "layers", weighted by
            their time, and "network"; empty where it was not compared with any.
    """

    @property
    def key(self) -> CostKey: ...

    @property
    def source(self) -> CostSource: ...

    @property
    def error(self) -> Mapping[str, float]: ...

    @property
    def plain(self) -> "CostModel":
        """The model of networks before 2:4 and grids are put on them, which is what a speed-up compares with."""
        ...

    def layer_ms(self, work: Work) -> NDArray[np.float64]:
        """Milliseconds of every operation with what follows it, float64 (..., operations).

        Raises:
            InputError: The model knows nothing of one of the operations.
        """
        ...

    def network_ms(self, work: Work) -> NDArray[np.float64]:
        """Milliseconds of one inference of the whole network, float64 (...,)."""
        ...
