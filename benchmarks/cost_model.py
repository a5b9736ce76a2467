"""Error of measured cost models on variants that they were not fitted to, and the seconds that they take.

    python -m benchmarks.cost_model [ResNet-18 ...]

Each network of `benchmarks.latency_target` has its variants measured as `measure_costs` does (ONNX Runtime, batch 1,
one thread, as many as there is time for), in turns with others, of another seed: laws are fitted to the former, their
layers and wholes held against the latter. All are timed in one session, since a machine's speed drifts from one to the
next. Aligned variants, whose widths are multiples of what engines compute in blocks, and mixed ones stand apart. The
seconds are those of one more measurement on its own.
"""

import argparse
import itertools
import os
import time
from typing import NoReturn

import numpy as np
import torch

from benchmarks.latency_target import NETWORKS
from benchmarks.tables import finish
from prunec.passes.costs.fitted import FittedCosts
from prunec.passes.coupling import analyse
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.runtime.costs.fitting import MeasuredVariants, errors_on, fit_costs
from prunec.runtime.costs.measuring import measure_costs, measure_variants
from prunec.runtime.costs.variants import VariantBudget, are_mixed, variant_widths
from prunec.runtime.target import Target

_CPU = Target.parse("cpu")
#: Variants beside those that laws are fitted to, with a seed of theirs.
_OTHERS, _OTHER_SEED = 9, 1000
#: Limits: relative error of a layer, weighted by its time, and of the whole; seconds of one network.
_LIMITS, _SECONDS = {"layers": 0.05, "network": 0.03}, {"ResNet-50": 60.0}


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    torch.set_num_threads(1)
    rows, missed = [], []
    for name in parser.parse_args().networks:
        network, inputs = NETWORKS[name]()
        program = capture(network, inputs)
        seconds = _seconds(program)
        if seconds > _SECONDS.get(name, np.inf):
            missed.append(f"{name}: {seconds:.0f} s")
        costs, fitted_to, others = _fitted(program)
        is_mixed = are_mixed(1 + _OTHERS)[1:]
        for title, chosen in (("aligned", ~is_mixed), ("mixed", is_mixed)):
            errors = errors_on(costs, others.only(np.flatnonzero(chosen)))
            found = (f"{errors[each]:.1%}" for each in _LIMITS)
            rows.append((name, f"{seconds:.0f}", str(fitted_to), title, *found))
            over = [each for each, limit in _LIMITS.items() if errors[each] > limit]
            missed += [f"{name}, {title} variants, {each}: {errors[each]:.1%}" for each in over]
        print(*rows[-2:], f"by the model itself: {costs.error}", f"load {os.getloadavg()[0]:.1f}", sep="\n", flush=True)
    finish("cost models", ("network", "s", "fitted to", "variants", "layer", "network"), rows, missed)


def _seconds(program: Program) -> float:
    """Seconds of measuring and fitting a cost model."""
    started = time.monotonic()
    measure_costs(program, _CPU)
    return time.monotonic() - started


def _fitted(program: Program) -> tuple[FittedCosts, int, MeasuredVariants]:
    """A network's cost model, the number of variants that it is fitted to, and other variants of the same session."""
    counts = np.array([group.count for group in analyse(program).groups], dtype=np.int64)
    budget = VariantBudget()
    own = budget.within(variant_widths(counts, budget.most, 0))
    samples, key = measure_variants(
        program, _CPU, itertools.chain(own, variant_widths(counts, 1 + _OTHERS, _OTHER_SEED)[1:])
    )
    numbers = np.arange(len(samples.networks_ms))
    costs = fit_costs(samples.only(numbers[:-_OTHERS]), key)
    return costs, len(numbers) - _OTHERS, samples.only(numbers[-_OTHERS:])


if __name__ == "__main__":
    main()
