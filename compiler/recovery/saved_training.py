"""The fields of a training's state, checked when a file is read: a damaged one must not train on."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.recovered import EarlyEnd

Count = Annotated[int, Field(ge=0)]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False)


class SavedAverage(_Fields):
    """A moving average of the weights, and the number of its updates."""

    tensors: dict[str, Tensor]
    updates: Count


class SavedTraining(_Fields):
    """Everything that the rest of a training depends on, as `Training.state` gives it.

    Raises:
        ValueError: A field is missing, unknown, or of another type, or they contradict each other.
    """

    curve: list[EpochRecord]
    step: Count
    trained: bool = False
    losses: list[float]
    scores: list[float]
    kept: dict[str, Tensor]
    kept_decisions: list[dict[str, Any]]
    best_epoch: Count
    seconds: Annotated[float, Field(ge=0)]
    tensors: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    average: SavedAverage | None
    early_end: EarlyEnd | None
    hooks: list[dict[str, Any]]
    random: list[list[Tensor]]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if [record.epoch for record in self.curve] != list(range(1, len(self.curve) + 1)):
            raise ValueError("its epochs aren't counted from 1")
        if not len(self.losses) == len(self.scores) == self.step:
            raise ValueError("it has other losses and scores than steps of the epoch under way")
        if self.best_epoch > len(self.curve):
            raise ValueError("its best epoch was never trained")
        if not all(bool(torch.isfinite(tensor).all()) for tensor in self.tensors.values()):
            raise ValueError("its weights aren't finite")
        return self


def check_tensors(stored: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str) -> None:
    """ValueError unless stored tensors have the names, shapes and types of a network's own."""
    if stored.keys() != own.keys():
        raise ValueError(f"{what}: it has other names than the network's")
    for name, tensor in stored.items():
        if (tensor.shape, tensor.dtype, tensor.layout) != (own[name].shape, own[name].dtype, own[name].layout):
            raise ValueError(f"{what}: {name} is {list(tensor.shape)}, expected {list(own[name].shape)}")


def check_optimizer_state(stored: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """ValueError unless the groups of a stored optimizer have the settings, by name and type, of an optimizer's."""
    for held, own in zip(stored["param_groups"], optimizer.state_dict()["param_groups"], strict=True):
        if {name: type(value) for name, value in held.items()} != {name: type(value) for name, value in own.items()}:
            raise ValueError("its optimizer has other settings")
    is_torchs_own = type(optimizer).__module__.startswith("torch.optim.")  # others may remember anything
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    for number, entry in stored["state"].items():
        kept = [value for value in entry.values() if isinstance(value, Tensor) and value.ndim]
        if number not in parameters or (is_torchs_own and any(t.shape != parameters[number].shape for t in kept)):
            raise ValueError("its optimizer remembers other weights")
