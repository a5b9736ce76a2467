"""Samples from the user's own datasets and data loaders."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from prunec.calibration.samples import ArraySamples, DatasetSamples, Part, Samples, on_cpu
from prunec.calibration.user_code import import_callable
from prunec.passes.errors import InputError


def open_callable(reference: str, part: Part, folder: Path, seed: int) -> tuple[Samples, Samples | None]:
    """Samples of the part that ``module:callable`` returns, and beside training data its own validation data.

    Each may be a map-style dataset, a ``DataLoader`` (of which the dataset and collate function are used), or
    an iterable of (input, label) batches, which is read into memory.

    Args:
        reference: The function, which takes no arguments and returns (training data, test data) or (training data,
            validation data, test data).
        part: The wanted part.
        folder: Folder in which the module is looked for first.
        seed: Seed of torch's random numbers while the function runs.

    Raises:
        InputError: The function fails, or gives something else or other samples each time.
        UsageError: There is no such function.
    """
    function = import_callable(reference, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            parts = function()
        except Exception as error:
            raise InputError(f"The data function {reference!r} failed: {type(error).__name__}: {error}") from error
        if not isinstance(parts, tuple | list) or len(parts) not in (2, 3):
            raise InputError(
                f"The data function {reference!r} gave a {type(parts).__name__}: expected (training data, test data) "
                "or (training data, validation data, test data)."
            )
        samples = _opened(parts[0 if part == "train" else -1], f"{reference} ({part})")
        has_validation = part == "train" and len(parts) == 3
        return samples, _opened(parts[1], f"{reference} (validation)") if has_validation else None


def _opened(data: Any, where: str) -> Samples:
    samples = _from_user_data(data, where)
    _check_repeatable(samples, where)
    return samples


def _from_user_data(data: Any, where: str) -> Samples:
    if isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset):
        # Its dataset in its own order: a shuffling loader would give another order every time.
        return _from_dataset(data.dataset, data.collate_fn, where)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, list | tuple):
        return _from_dataset(data, default_collate, where)
    if isinstance(data, Iterable):
        return _from_batches(data, where)
    raise InputError(f"{where}: {type(data).__name__} is neither a dataset nor an iterable of (input, label) batches.")


def _from_dataset(dataset: Any, collate: Callable[[list[Any]], Any], where: str) -> DatasetSamples:
    try:
        len(dataset)
    except Exception as error:
        raise InputError(f"{where}: len() of the dataset fails: {type(error).__name__}: {error}") from error
    return DatasetSamples(dataset, collate, where)


def _from_batches(batches: Iterable[Any], where: str) -> ArraySamples:
    inputs, labels = [], []
    for batch in batches:
        try:
            images, targets = batch
            inputs.append(on_cpu(images))
            labels.append(on_cpu(targets))
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{where}: batch {len(inputs)} is no (input, label) pair of tensors: {error}") from error
    if not inputs:
        raise InputError(f"{where} gave no batches.")
    try:
        samples = ArraySamples(torch.cat(inputs), torch.cat(labels))
    except RuntimeError as error:
        raise InputError(f"{where}: batches don't fit together: {error}") from error
    if len(samples.inputs) != len(samples.labels):
        raise InputError(f"{where} gave {len(samples.inputs)} inputs and {len(samples.labels)} labels.")
    return samples


def _check_repeatable(samples: Samples, where: str) -> None:
    """The same index must give the same sample: validation is fixed, and a run is a function of its seed."""
    if not isinstance(samples, DatasetSamples) or len(samples) == 0:
        return
    first = torch.arange(min(4, len(samples)))
    if not torch.equal(samples.fetch(first)[0], samples.fetch(first)[0]):
        raise InputError(
            f"{where} gives another input each time the same sample is read: it applies random transforms.",
            hint="Return the data without them, and name augmentations in [data] augment instead.",
        )
