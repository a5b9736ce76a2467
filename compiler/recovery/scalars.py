"""Learning curves for TensorBoard."""

from pathlib import Path
from types import TracebackType
from typing import Self

from prunec.compiler.ranks import is_main
from prunec.compiler.recovery.training import EpochRecord
from prunec.passes.errors import MissingDependencyError


class Scalars:
    """Writes every epoch's figures into a folder; a context manager. Only the first of several processes writes.

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, record: EpochRecord) -> None:
        """Write the figures of an epoch."""
        values = {
            "learning_rate": record.learning_rate,
            "loss/train": record.train_loss,
            "metric/train": record.train,
            "metric/validation": record.validation,
            "metric/test": record.test,
        }
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, record.epoch)
