"""Checks of labelled data before anything runs on them: one pass over all samples, which also hashes them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunec.calibration.samples import FirstReading, InputKind, Samples, kinds_of, tensors_of
from prunec.passes.errors import InputError
from prunec.passes.interruption import stoppable

_CHUNK = 1024
_TYPES = (
    *(torch.uint8, torch.float16, torch.float32, torch.float64),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
)


@dataclass(frozen=True)
class Scan:
    """Shape, type and labels of samples, known after one pass over them.

    Attributes:
        where: The source, as error messages name it.
        kinds: What the stored inputs are, one after the other.
        labels: (N,) int64, or maps of labels (N, H, W).
        positions: (N,) positions of the samples in the source, increasing.
        keys: (N,) int64, random numbers that follow from a seed and the content of each input, not from its position.
        label_dtypes: Data types of labels as they are stored.
    """

    where: str
    kinds: tuple[InputKind, ...]
    labels: Tensor
    positions: Tensor
    keys: Tensor
    label_dtypes: frozenset[torch.dtype]

    @property
    def seen(self) -> FirstReading:
        """What later readings of the samples are held to."""
        extremes = int(self.labels.min()), int(self.labels.max())
        return FirstReading(self.kinds, tuple(self.labels.shape[1:]), self.label_dtypes, extremes)


def scan(samples: Samples, positions: Tensor, where: str, seed: int, hash_bytes: Callable[[bytes], None]) -> Scan:
    """Check the samples at these positions, and hash what they hold.

    Args:
        samples: The source.
        positions: (N,) increasing positions.
        where: The source, as error messages name it.
        seed: Seed of the keys.
        hash_bytes: Receives all that the samples hold.

    Raises:
        InputError: There are no samples; inputs differ in shape, are of an unusable type or hold values that
            aren't finite; labels aren't whole numbers or are negative.
    """
    count = len(positions)
    if count == 0:
        raise InputError(f"{where} holds no samples.")
    labels: list[Tensor] = []
    keys: list[bytes] = []
    label_dtypes: set[torch.dtype] = set()
    kinds: tuple[InputKind, ...] | None = None
    for indices in stoppable(torch.split(positions, _CHUNK)):
        start = int(indices[0])
        inputs, targets = samples.fetch(indices)
        tensors, kinds_here = tensors_of(inputs), kinds_of(inputs)
        if kinds is None:
            kinds = kinds_here
            hash_bytes("".join(f"{k.name}{k.dtype}|{count}|{k.shape}|" for k in kinds).encode())
        elif kinds != kinds_here:
            raise InputError(
                f"{where}: samples from {start} on have {_words(kinds_here)}; those before have {_words(kinds)}."
            )
        for tensor in tensors:
            _check_inputs(tensor, indices, where, alone=isinstance(inputs, Tensor))
        stored = [tensor.contiguous().numpy() for tensor in tensors]
        for array in stored:
            hash_bytes(array.tobytes())
        keys += _keys(stored, seed)
        labels.append(_whole_labels(targets, indices, where))
        label_dtypes.add(targets.dtype)
    assert kinds is not None
    whole = torch.cat(labels)
    hash_bytes(whole.numpy().tobytes())
    drawn = torch.from_numpy(np.frombuffer(b"".join(keys), np.int64).copy())
    return Scan(where, kinds, whole, positions, drawn, frozenset(label_dtypes))


def _words(kinds: tuple[InputKind, ...]) -> str:
    return ", ".join(map(str, kinds))


def _keys(stored: Sequence[NDArray[Any]], seed: int) -> list[bytes]:
    """Eight random bytes for the inputs of each sample."""
    digests = [hashlib.blake2b(digest_size=8, key=str(seed).encode()) for _ in stored[0]]
    for array in stored:
        for digest, one in zip(digests, array.reshape(len(array), -1), strict=True):
            digest.update(one.data)
    return [digest.digest() for digest in digests]


def _check_inputs(inputs: Tensor, positions: Tensor, where: str, *, alone: bool) -> None:
    if inputs.dtype not in _TYPES:
        raise InputError(
            f"{where}: inputs have type {inputs.dtype}: expected uint8 (0 to 255), whole numbers of at most 64 bits, "
            "float16, float32 or float64.",
            hint="Convert the images with .astype('uint8') or .astype('float32').",
        )
    if alone and inputs.ndim < 2:
        raise InputError(f"{where}: a batch of inputs has shape {tuple(inputs.shape)}: expected (N, ...).")
    if inputs.is_floating_point() and not torch.isfinite(inputs).all():
        bad = int(positions[(~torch.isfinite(inputs)).reshape(len(inputs), -1).any(1)][0])
        raise InputError(f"{where}: sample {bad} holds values that are not finite (NaN or infinity).")


def _whole_labels(labels: Tensor, positions: Tensor, where: str) -> Tensor:
    if labels.ndim in (0, 2):
        raise InputError(
            f"{where}: a batch of labels has shape {tuple(labels.shape)}: expected one number per sample, or a map.",
            hint="Turn one-hot labels into class numbers with .argmax(1).",
        )
    numbers = labels.double()
    wrong = (numbers != numbers.round()) | (numbers < 0) | ~torch.isfinite(numbers)
    if wrong.any():
        at = int(positions[wrong.nonzero()[0, 0]])
        value = labels[wrong][0].item()
        raise InputError(f"{where}: the label of sample {at} is {value}; expected a class number.")
    return labels.long()


def check_classes(train: Scan, others: Sequence[Scan], fitted: Tensor) -> int:
    """Number of classes, of the training labels.

    Args:
        train: The training data, perhaps with validation data among them.
        others: The test data, and validation data of the source's own.
        fitted: Labels of the samples to train on.

    Raises:
        InputError: The samples to train on hold one class only, or labels of the others lie outside the classes.
    """
    if len(fitted) < 2:
        raise InputError(
            f"{train.where} holds {len(train.labels)} samples: {len(train.labels) - len(fitted)} are held out for "
            f"validation, which leaves {len(fitted)} to train on.",
            hint="At least two are needed, of different classes.",
        )
    if fitted.min() == fitted.max():
        raise InputError(
            f"{train.where}: all {len(fitted)} samples to train on have the label {int(fitted.flatten()[0])}: there "
            "is nothing to learn.",
            hint="At least two classes are needed.",
        )
    classes = int(train.labels.max()) + 1
    if train.labels.ndim > 1:  # a map may name what no map of the training data does, or mark what is not labelled
        return classes
    for other in others:
        too_large = (other.labels >= classes).nonzero().flatten()
        if len(too_large):
            at = int(too_large[0])
            raise InputError(
                f"{other.where}: the label of sample {int(other.positions[at])} is {int(other.labels[at])}, outside "
                f"the classes of the training data (0 to {classes - 1})."
            )
    return classes


def check_same_shape(train: Scan, test: Scan) -> None:
    """Training and other inputs must have one shape and be of one type, and labels of one shape.

    Raises:
        InputError: They differ.
    """
    if train.kinds != test.kinds:
        raise InputError(
            f"{train.where} holds inputs of {_words(train.kinds)}, but {test.where} holds {_words(test.kinds)}."
        )
    if train.labels.shape[1:] != test.labels.shape[1:]:
        raise InputError(
            f"{train.where} holds labels of shape {tuple(train.labels.shape[1:])} per sample, but {test.where} "
            f"{tuple(test.labels.shape[1:])}."
        )
