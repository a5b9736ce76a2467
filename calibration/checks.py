"""Checks of labelled data before anything runs on them: one pass over all samples, which also hashes them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.calibration.samples import Samples
from prunec.passes.errors import InputError

_CHUNK = 1024
_TYPES = (torch.uint8, torch.float16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Scan:
    """Shape, type and labels of samples, known after one pass over them.

    Attributes:
        where: The source, as error messages name it.
        shape: Shape of one stored input.
        dtype: Data type of stored inputs.
        labels: (N,) int64, or maps of labels (N, H, W).
    """

    where: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    labels: Tensor


def scan(samples: Samples, limit: int | None, where: str, hash_bytes: Callable[[bytes], None]) -> Scan:
    """Check the first ``limit`` samples, or all of them, and hash what they hold.

    Raises:
        InputError: There are no samples; inputs differ in shape, are of an unusable type or hold values that
            aren't finite; labels aren't whole numbers or are negative.
    """
    count = len(samples) if limit is None else min(limit, len(samples))
    if count == 0:
        raise InputError(f"{where} holds no samples.")
    labels: list[Tensor] = []
    kind: tuple[tuple[int, ...], torch.dtype] | None = None
    for start in range(0, count, _CHUNK):
        inputs, targets = samples.fetch(torch.arange(start, min(start + _CHUNK, count)))
        shape, dtype = tuple(inputs.shape[1:]), inputs.dtype
        if kind is None:
            kind = shape, dtype
            hash_bytes(f"{dtype}|{count}|{shape}|".encode())
        elif kind != (shape, dtype):
            raise InputError(
                f"{where}: samples from {start} on have shape {shape} and type {dtype}; "
                f"those before have {kind[0]} and {kind[1]}."
            )
        _check_inputs(inputs, start, where)
        hash_bytes(inputs.contiguous().numpy().tobytes())
        labels.append(_whole_labels(targets, start, where))
    joined = torch.cat(labels)
    hash_bytes(joined.numpy().tobytes())
    return Scan(where, shape, dtype, joined)


def _check_inputs(inputs: Tensor, first: int, where: str) -> None:
    if inputs.dtype not in _TYPES:
        raise InputError(
            f"{where}: inputs have type {inputs.dtype}: expected uint8 (0 to 255), float16, float32 or float64.",
            hint="Convert the images with .astype('uint8') or .astype('float32').",
        )
    if inputs.ndim < 2:
        raise InputError(f"{where}: a batch of inputs has shape {tuple(inputs.shape)}: expected (N, ...).")
    if inputs.is_floating_point() and not torch.isfinite(inputs).all():
        bad = first + int((~torch.isfinite(inputs)).flatten(1).any(1).nonzero()[0])
        raise InputError(f"{where}: sample {bad} holds values that are not finite (NaN or infinity).")


def _whole_labels(labels: Tensor, first: int, where: str) -> Tensor:
    if labels.ndim in (0, 2):
        raise InputError(
            f"{where}: a batch of labels has shape {tuple(labels.shape)}: expected one number per sample, or a map.",
            hint="Turn one-hot labels into class numbers with .argmax(1).",
        )
    numbers = labels.double()
    wrong = (numbers != numbers.round()) | (numbers < 0) | ~torch.isfinite(numbers)
    if wrong.any():
        at = int(wrong.nonzero()[0, 0])
        value = labels[wrong][0].item()
        raise InputError(f"{where}: the label of sample {first + at} is {value}; expected a class number.")
    return labels.long()


def check_classes(train: Scan, test: Scan, boundary: int) -> int:
    """Number of classes, of the training labels.

    Args:
        train: The training data, of which the samples from ``boundary`` on are for validation.
        test: The test data.
        boundary: Number of samples to train on.

    Raises:
        InputError: The samples to train on hold one class only, test labels lie outside the classes, or the
            validation samples hold classes that training never sees since the data are sorted.
    """
    classes = int(train.labels.max()) + 1
    fitted, held_out = train.labels[:boundary], train.labels[boundary:]
    if boundary < 2:
        raise InputError(
            f"{train.where} holds {len(train.labels)} samples: the last {len(held_out)} are held out for validation, "
            f"which leaves {boundary} to train on.",
            hint="At least two are needed, of different classes.",
        )
    if fitted.min() == fitted.max():
        raise InputError(
            f"{train.where}: all {boundary} samples to train on have the label {int(fitted.flatten()[0])}: there "
            "is nothing to learn.",
            hint="At least two classes are needed, and enough samples that the last part can be held out.",
        )
    if train.labels.ndim > 1:  # a map may name what no map of the training data does, or mark what is not labelled
        return classes
    too_large = test.labels >= classes
    if too_large.any():
        at = int(too_large.nonzero()[0])
        raise InputError(
            f"{test.where}: the label of sample {at} is {int(test.labels[at])}, outside the classes of the "
            f"training data (0 to {classes - 1})."
        )
    unseen = sorted(set(held_out.tolist()) - set(fitted.tolist()))
    if unseen and bool((train.labels.diff() >= 0).all()):
        raise InputError(
            f"{train.where}: the samples are sorted by label, so that the validation data (the last "
            f"{len(held_out)}) hold classes that training doesn't, such as {unseen[0]}.",
            hint="Shuffle the training data once, with a fixed seed.",
        )
    return classes


def check_same_shape(train: Scan, test: Scan) -> None:
    """Training and test inputs must have one shape and be of one type, and labels of one shape.

    Raises:
        InputError: They differ.
    """
    if (train.shape, train.dtype) != (test.shape, test.dtype):
        raise InputError(
            f"{train.where} holds inputs of shape {train.shape} and type {train.dtype}, but {test.where} "
            f"holds {test.shape} and {test.dtype}."
        )
    if train.labels.shape[1:] != test.labels.shape[1:]:
        raise InputError(
            f"{train.where} holds labels of shape {tuple(train.labels.shape[1:])} per sample, but {test.where} "
            f"{tuple(test.labels.shape[1:])}."
        )
