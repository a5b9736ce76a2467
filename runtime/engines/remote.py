"""Engines that are built and run in the process of native code, `prunec.runtime.children`. Imports no torch.

Whatever loads, runs or times an engine goes through here, whichever kind it is of.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from prunec.passes.errors import NativeCrashError
from prunec.passes.unknown import Unknown
from prunec.runtime import children
from prunec.runtime.engines import served
from prunec.runtime.engines.protocol import EngineInfo
from prunec.runtime.latency import LatencyComparison, SessionTimes

if TYPE_CHECKING:
    from numpy.typing import NDArray

Result = TypeVar("Result")


class RemoteSession:
    """An engine, loaded in the process of native code inside the ``with`` block.

    Arrays come and go in the order of the model's inputs and outputs. All its methods raise `NativeCrashError` where
    that process dies.

    Args:
        engine: The engine.
        title: Name of its kind in sentences.
        threads: Number of CPU threads, where they matter; 0 for as many as the library likes.
        opened: Loads it in that process, and gives the number of the session.
    """

    def __init__(
        self,
        engine: EngineInfo,
        title: str,
        threads: int = 1,
        opened: Callable[[str, EngineInfo, int], int] = served.open_session,
    ) -> None:
        self._engine, self._title, self._threads = replace(engine, path=engine.path.absolute()), title, threads
        self._opened = opened

    def __enter__(self) -> Self:
        """Load the engine.

        Raises:
            MissingDependencyError: The engine doesn't fit this machine.
            InputError: ONNX Runtime can't load the file.
        """
        self._child = children.child()
        self._number = self._call("loaded", self._opened, self._engine.kind, self._engine, self._threads)
        return self

    def __exit__(self, *_: object) -> None:
        """Free the engine."""
        if self._child.is_alive():
            self._call("freed", served.close_session, self._number)

    def __call__(self, *inputs: "NDArray[Any]") -> "list[NDArray[Any]]":
        """Run one inference."""
        return self._call("ran", served.run, self._number, inputs)

    def sizes(self) -> tuple[list[str], list[tuple[int | str, ...]]]:
        """Names and sizes of the inputs, under ONNX Runtime; a dynamic size is its name."""
        return self._call("described", served.sizes, self._number)

    def timed(self, inputs: "Sequence[NDArray[Any]]", runs: int) -> SessionTimes:
        """Times by the engine's own timer, after a warm-up."""
        return self._call("timed", served.timed, self._number, inputs, runs)

    def compared_with(self, dense: Self, inputs: "Sequence[NDArray[Any]]", runs: int, seed: int) -> LatencyComparison:
        """Latency of another engine of this kind and of this one, measured in turns by their own timers."""
        return self._call("timed", served.compare, dense._number, self._number, inputs, runs, seed)

    def node_times_ms(
        self, inputs: "Sequence[NDArray[Any]]", nodes: Sequence[str], runs: int
    ) -> Mapping[str, float] | Unknown:
        """Milliseconds by node (`Session.node_times_ms`)."""
        return self._call("timed the layers of", served.node_times_ms, self._number, inputs, nodes, runs)

    def sparse_kernels(self, nodes: Sequence[str]) -> Mapping[str, bool]:
        """Whether sparse kernels run the nodes (`Session.sparse_kernels`)."""
        return self._call("described", served.sparse_kernels, self._number, nodes)

    def _call(self, verb: str, function: Callable[..., Result], *args: Any) -> Result:
        return self._child.call(f"{self._title} {verb} {self._engine.path.name}", function, *args)


def open_onnx(path: Path, threads: int = 1, *, as_written: bool = False) -> RemoteSession:
    """An ONNX file under ONNX Runtime on the CPU, not yet loaded; ``as_written`` has its graph run as it stands."""
    opened = served.open_as_written if as_written else served.open_session
    return RemoteSession(EngineInfo("onnxruntime", path, "", run_on_device=True), "ONNX Runtime", threads, opened)


def survived(work: Callable[[], Result]) -> Result | Unknown:
    """The result of some work, or the reason why native code that died in it has none."""
    try:
        return work()
    except NativeCrashError as error:
        return Unknown(error.message)
