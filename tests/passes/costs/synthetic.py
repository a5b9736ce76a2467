"""Networks with a known law of time, so that fitting can be judged without a clock."""

import numpy as np
from numpy.typing import NDArray

from prunec.passes.costs.cost_model import CostKey
from prunec.passes.costs.counting import workload_of
from prunec.passes.costs.fitted import FEATURES, REGIMES, Blocks, FittedCosts
from prunec.passes.costs.layers import layers_of
from prunec.passes.costs.workload import Work, Workload
from prunec.passes.coupling import analyse
from prunec.passes.program import Program

KEY = CostKey("cpu", "a processor", "an engine 1.0", 1, 1)
#: Milliseconds per unit of each feature, of an engine such as there are.
_UNITS = dict(zip(FEATURES, (2e-3, 5e-7, 4e-7, 1e-8, 1e-7, 4e-9, 5e-7, 3e-7, 4e-7, 2e-8), strict=True))


def workload(program: Program) -> tuple[Workload, NDArray[np.int64]]:
    """The workload of a program, and the units of its groups."""
    coupling = analyse(program)
    return workload_of(program, coupling), np.array([group.count for group in coupling.groups], dtype=np.int64)


def engine(work: Work, seed: int, blocks: Blocks | None = None) -> FittedCosts:
    """An engine on which layers of one operator and kernel share a law; without blocks a convolution takes longer."""
    operations = work.operations
    generator, laws = np.random.default_rng(seed), np.zeros((len(REGIMES), len(operations), len(FEATURES)))
    drawn: dict[object, NDArray[np.float64]] = {}
    for position, each in enumerate(operations):
        kind = each.operator, each.kernel, each.is_grouped
        drawn.setdefault(kind, generator.uniform(0.5, 2, (len(REGIMES), len(FEATURES))) * list(_UNITS.values()))
        laws[:, position] = drawn[kind] * np.array([1, 1.5, 4])[:, None]
    return FittedCosts(KEY, {}, blocks or Blocks(16, 4, 4), layers_of(work), laws, (0.05, 1.02))
