"""Samples from the user's own datasets and data loaders."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from prunec.calibration.samples import ArraySamples, DatasetSamples, PartName, Samples, batch_inputs, on_cpu, tensors_of
from prunec.calibration.user_code import import_callable
from prunec.passes.errors import InputError
from prunec.passes.feeding import BatchInputs, joined
from prunec.passes.user_calls import call_user_code, defined_at

#: Gives the parts that a data function of this name returns; see `data_functions`.
CallDataFunction = Callable[[str], Sequence[Any]]
_ONCE = "An iterator gives its batches once: one that stands for two parts, or was read before, is empty afterwards."


def data_functions(folder: Path, seed: int) -> CallDataFunction:
    """Calls functions of the form ``module:callable``, each once: another call might divide the same data otherwise.

    Args:
        folder: Folder in which modules are looked for first.
        seed: Seed of random numbers while a function runs.

    Returns:
        A function from the name of one to (training data, test data) or (training data, validation data, test data).
        It raises `InputError` where a function fails or gives something else, and `UsageError` where there is none.
    """

    @cache
    def parts_of(reference: str) -> Sequence[Any]:
        function = import_callable(reference, folder)
        with _seeded(seed):
            parts = call_user_code(f"data function {reference!r}", function)
        if not isinstance(parts, tuple | list) or len(parts) not in (2, 3):
            raise InputError(
                f"The data function {reference!r}{defined_at(function)} gave {_counted(parts)}: expected (training "
                "data, test data) or (training data, validation data, test data)."
            )
        return parts

    return parts_of


def open_parts(parts: Sequence[Any], part: PartName, reference: str, seed: int) -> tuple[Samples, Samples | None]:
    """Samples of a part of a data function's, and beside training data its own validation data.

    Each may be a map-style dataset, a ``DataLoader`` (of which the dataset and collate function are used), or
    an iterable of (input, label) batches, which is read into memory.

    Args:
        parts: What the function returned.
        part: The wanted part.
        reference: Name of the function.
        seed: Seed of random numbers while samples are read.

    Raises:
        InputError: A part is none of these, or gives other samples each time.
    """
    with _seeded(seed):
        samples = _opened(parts[0 if part == "train" else -1], f"{reference} ({part})")
        has_validation = part == "train" and len(parts) == 3
        return samples, _opened(parts[1], f"{reference} (validation)") if has_validation else None


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let the random numbers of torch, NumPy and Python follow a seed for a while."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _counted(parts: Any) -> str:
    return f"{len(parts)} parts" if isinstance(parts, tuple | list) else f"a {type(parts).__name__}"


def _opened(data: Any, where: str) -> Samples:
    samples: Samples = call_user_code(where, _from_user_data, data, where, code=data)
    _check_repeatable(samples, where)
    return samples


def _from_user_data(data: Any, where: str) -> Samples:
    if isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset):
        # Its dataset in its own order: a shuffling loader would give another order every time.
        return DatasetSamples(data.dataset, data.collate_fn, where)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, list | tuple):
        return DatasetSamples(data, default_collate, where)
    if isinstance(data, Iterable):
        return _from_batches(data, where)
    raise InputError(f"{where}: {type(data).__name__} is neither a dataset nor an iterable of (input, label) batches.")


def _from_batches(batches: Iterable[Any], where: str) -> ArraySamples:
    inputs: list[BatchInputs] = []
    labels: list[Tensor] = []
    for batch in batches:
        try:
            images, targets = batch
            inputs.append(batch_inputs(images))
            labels.append(on_cpu(targets))
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{where}: batch {len(inputs)} is no (input, label) pair of tensors: {error}") from error
        for tensor in tensors_of(inputs[-1]):
            if len(tensor) != len(labels[-1]):
                raise InputError(
                    f"{where}: batch {len(inputs) - 1} has {len(tensor)} inputs and {len(labels[-1])} labels."
                )
    if not inputs:
        raise InputError(f"{where} gave no batches.", hint=_ONCE)
    try:
        return ArraySamples(joined(inputs), torch.cat(labels))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{where}: batches don't fit together: {error}") from error


def _check_repeatable(samples: Samples, where: str) -> None:
    """The same index must give the same sample: validation is fixed, and a run is a function of its seed."""
    if not isinstance(samples, DatasetSamples) or len(samples) == 0:
        return
    count = len(samples)
    first = torch.arange(min(4, count))
    pairs = zip(*(tensors_of(samples.fetch(first)[0]) for _ in range(2)), strict=True)
    if not all(torch.equal(one, other) for one, other in pairs):
        raise InputError(
            f"{where} gives another input each time the same sample is read: it applies random transforms.",
            hint="Return the data without them, and name augmentations in [data] augment instead.",
        )
    samples.fetch(torch.tensor([count - 1]))  # a wrong length shows before all are numbered
