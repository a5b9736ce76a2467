"""Learning curves for TensorBoard."""

from pathlib import Path
from typing import Self

from prunec.compiler.machine.ranks import is_main
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.passes.errors import MissingDependencyError


class Scalars:
    """A context manager that writes every epoch's figures into a folder, in the first of several processes.

    Raises:
        MissingDependencyError: TensorBoard isn't installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "--tensorboard needs the package tensorboard, which isn't installed.",
                hint="pip install 'prunec[tensorboard]'",
            ) from error
        self._writer = SummaryWriter(str(folder)) if is_main() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, record: EpochRecord) -> None:
        """Write the figures of an epoch."""
        if self._writer is None:
            return
        self._writer.add_scalar("learning_rate", record.learning_rate, record.epoch)
        self._writer.add_scalar("loss/train", record.train_loss, record.epoch)
        for data in ("train", "validation", "test"):
            self._writer.add_scalar(f"metric/{data}", getattr(record, data), record.epoch)
