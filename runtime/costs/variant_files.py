"""The ONNX files of a network's variants."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from prunec.passes.coupling import Coupling
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown
from prunec.runtime.costs.onnx_cutting import CuttableOnnx
from prunec.runtime.costs.onnx_widths import cuttable
from prunec.runtime.costs.variants import removed_units, without
from prunec.runtime.int8_form import as_timed
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_files import save_onnx
from prunec.runtime.onnx_precision import typed_form
from prunec.runtime.target import Target

_NAME = "model.onnx"


class VariantFiles:
    """Writes the files of a network's variants one after the other, as a target's engine is built of them.

    The whole network, which is the first, and the second one are exported. The others are cut out of the first file,
    where the second one is explained by cutting. They are exported, too, where it isn't, which is said, and where the
    target's networks have masks or grids: these depend on the values that stay.
    """

    def __init__(self, program: Program, coupling: Coupling, target: Target, folder: Path, seed: int) -> None:
        self._program, self._coupling, self._target, self._seed = program, coupling, target, seed
        self._folder, self._written = folder, 0
        self._cuttable: CuttableOnnx | Unknown = Unknown("its networks have masks or grids.")

    def write(self, kept: NDArray[np.int64], progress: Callable[[str], None]) -> Path:
        """The file of the next variant, in a folder of its own, with ``kept`` units of each group, int64 (groups,).

        ``progress`` is told where variants can't be cut.
        """
        number, folder = self._written, self._next_folder()
        path, removed = folder / _NAME, removed_units(self._coupling, kept, self._seed + number)
        if isinstance(self._cuttable, CuttableOnnx):
            save_onnx(self._cuttable.without(removed), path)
        else:
            pruned = without(self._program, self._coupling, removed) if number else self._program
            export_onnx(as_timed(pruned, self._target), path)
        if number == 1 and not (self._target.sparse or self._target.on_grids):
            whole = onnx.load(self._folder / "0" / _NAME, load_external_data=False)
            pruned = onnx.load(path, load_external_data=False)
            self._cuttable = cuttable(whole, pruned, self._coupling, removed)
            if isinstance(self._cuttable, Unknown):
                progress(f"each variant is exported: {self._cuttable.reason}")
        return self._typed(path)

    def write_plain(self) -> Path:
        """The file of the whole network without masks and grids."""
        path = self._next_folder() / _NAME
        export_onnx(self._program, path)
        return self._typed(path)

    def _next_folder(self) -> Path:
        folder = self._folder / str(self._written)
        folder.mkdir()
        self._written += 1
        return folder

    def _typed(self, path: Path) -> Path:
        return typed_form(self._target.float_precision, path, path.with_name("typed.onnx"))
