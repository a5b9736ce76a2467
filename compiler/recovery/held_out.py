"""Parts of the training data that are set aside for hooks and not trained on."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from prunec.calibration.splits import SampleSplit, Split, mixed_seed
from prunec.passes.errors import UsageError

#: Tells the random numbers that divide the data from those that shuffle them, which follow seed and epoch.
_PURPOSE = int.from_bytes(b"held")


def hold_out(train: Split, fractions: Sequence[float], seed: int) -> tuple[Split, list[Split | None]]:
    """Divide the training data at random: what is left for training, and a part for each fraction.

    Args:
        train: The training data.
        fractions: Share of each part in the training data, at least 0 and below 1; 0 for no part.
        seed: Seed of the choice, not negative.

    Raises:
        UsageError: Nothing would be left to train on.
    """
    if not any(fractions):
        return train, [None] * len(fractions)
    counts = [max(1, round(fraction * len(train))) if fraction else 0 for fraction in fractions]
    if sum(counts) >= len(train):
        raise UsageError(
            f"recover: hooks ask for {' + '.join(f'{fraction:g}' for fraction in fractions)} of the training data; "
            "some data must be left to train on."
        )
    if not isinstance(train, SampleSplit):
        raise UsageError(f"recover: training data of the kind {type(train).__name__} can't be divided for hooks.")
    order = torch.randperm(len(train), generator=Generator().manual_seed(mixed_seed(seed, _PURPOSE)))
    *parts, rest = torch.split(order, [*counts, len(train) - sum(counts)])
    return _part(train, rest), [_part(train, part) if len(part) else None for part in parts]


def _part(train: SampleSplit, chosen: Tensor) -> SampleSplit:
    return replace(train, positions=train.positions[chosen.sort().values])
