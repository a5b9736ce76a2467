"""Learning curves for TensorBoard. Imports no torch."""

from importlib.util import find_spec
from pathlib import Path
from typing import Self

from prunec.compiler.machine.ranks import is_main
from prunec.compiler.machine.writable import check_folder_can_be_made
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.passes.errors import MissingDependencyError


def check_tensorboard(folder: Path) -> None:
    """Refuse a folder that no learning curves can be written to.

    Raises:
        MissingDependencyError: TensorBoard isn't installed.
        UsageError: There is something else than a folder at its place.
        EnvironmentFailure: Nothing can be written there.
    """
    if find_spec("tensorboard") is None:
        raise MissingDependencyError(
            "--tensorboard needs the package tensorboard, which isn't installed.",
            hint="pip install 'prunec[tensorboard]'",
        )
    check_folder_can_be_made(folder, f"--tensorboard {folder}")


class Scalars:
    """A context manager that writes every epoch's figures into a folder, in the first of several processes.

    Raises:
        MissingDependencyError: TensorBoard isn't installed.
        UsageError: There is something else than a folder at its place.
        EnvironmentFailure: Nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        check_tensorboard(folder)
        from torch.utils.tensorboard import SummaryWriter

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
