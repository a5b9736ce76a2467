"""An engine as another package would bring it: the reference evaluator of ONNX, with a device of its own."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from prunec.runtime.devices import DEVICES, Device
from prunec.runtime.engines import EngineInfo, EngineKind, EngineOptions, Session
from prunec.runtime.latency import Timer
from prunec.runtime.target import Target


class ReferenceSession(Session):
    """A model in the reference evaluator."""

    def __init__(self, path: Path) -> None:
        self._model = onnx.load_model_from_string(path.read_bytes())
        self._evaluator = ReferenceEvaluator(self._model)

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Run one inference."""
        return list(self._evaluator.run(None, dict(zip(self._evaluator.input_names, inputs, strict=True))))

    def timer(self, *inputs: NDArray[Any]) -> Timer:
        """The time of an imagined machine, which takes a second for each weight."""
        seconds = sum(math.prod(tensor.dims) for tensor in self._model.graph.initializer)
        return lambda: 1000.0 * seconds


class ReferenceEngine(EngineKind):
    """The reference evaluator, which computes on any CPU, slowly."""

    name: ClassVar[str] = "reference"
    title: ClassVar[str] = "the reference evaluator of ONNX"
    file_name: ClassVar[str | None] = "engine.reference"
    devices: ClassVar[tuple[Device, ...]] = (
        replace(DEVICES["cpu"], name="referencecpu", title="CPU under the reference evaluator", engines=("reference",)),
    )

    def serves(self, target: Target) -> bool:
        """Its own device, and any other CPU."""
        return target.device in ("referencecpu", "cpu")

    def build(self, target: Target, onnx_path: Path, folder: Path, options: EngineOptions) -> EngineInfo:
        """Copy the model."""
        path = folder / "engine.reference"
        path.write_bytes(onnx_path.read_bytes())
        return EngineInfo(self.name, path, f"onnx {onnx.__version__}", run_on_device=True)

    def open(self, engine: EngineInfo, threads: int = 1) -> ReferenceSession:
        """The model, loaded."""
        return ReferenceSession(engine.path)
