from collections.abc import Callable

import pytest

from prunec.passes.errors import UsageError
from prunec.passes.permute import Permute
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.seeds import MAX_SEED


@pytest.mark.parametrize("make", [lambda seed: Permute(seed=seed), lambda seed: PruneFilters(ratio=0.5, seed=seed)])
def test_seeds_are_those_that_every_library_takes(make: Callable[[int | None], object]) -> None:
    for seed in (None, 0, MAX_SEED):
        make(seed)
    for seed in (-1, MAX_SEED + 1):
        with pytest.raises(UsageError, match=f"seed is {seed}"):
            make(seed)
