"""Foreign native code runs in a process of its own, whose death costs nothing here but that code's result.

ONNX Runtime, TensorRT and their parsers can crash, and a crash in this process would take trained weights with it.
`call` runs a function in a child, ``python -m prunec.runtime.child``, in a process group of its own and without torch.
Each thread has one child, which is kept for its next calls and ends with the thread or with this process, however that
ends. Imports no torch.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prunec.passes.errors import NativeCrashError
from prunec.passes.interruption import ended_at_request

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_HEADER_BYTES = 8
_END_SECONDS = 5
#: Ctrl-C in a terminal goes to the parent's group alone.
_OWN_GROUP: dict[str, Any] = {"creationflags": 0x200} if sys.platform == "win32" else {"process_group": 0}
_of_thread = threading.local()


def call(
    stage: str, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Call a function in this thread's child.

    Args:
        stage: What happens, as the end of a sentence: "ONNX Runtime loaded model.onnx".
        function: A function of a module that imports no torch.
        args: Its arguments, which can be pickled, as its result can.
        kwargs: Its arguments by name.

    Raises:
        NativeCrashError: The child died; the message holds the signal and the stage.
        KeyboardInterrupt: A request to stop ended it.
        Exception: What the function raises, as the child raised it.
    """
    return child().call(stage, function, *args, **kwargs)


def child() -> "Child":
    """The child of this thread, started where there is none that lives and finds the same modules."""
    living: Child | None = getattr(_of_thread, "child", None)
    if living is None or not (living.is_alive() and living.finds_our_modules()):
        living = _of_thread.child = Child()
    return living


def restart() -> None:
    """Let this thread's next call start a child of its own: with other addresses, caches and threads."""
    _of_thread.child = None


class Child:
    """A process that runs functions for this one; its standard error is passed on after each call."""

    def __init__(self) -> None:
        self._path, self._is_ended_by_us = list(sys.path), False
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child lives
        self._process = subprocess.Popen(
            [sys.executable, "-P", *(f"-W{option}" for option in sys.warnoptions), "-m", "prunec.runtime.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            # The modules that are found here, such as those of plug-ins, are found there.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, self._path))},
            **_OWN_GROUP,
        )
        self._owner = os.getpid()
        weakref.finalize(self, _end, self._process, self._said, self._owner)

    def is_alive(self) -> bool:
        """Whether it lives, and was started by this process and not by the one that this one was forked from."""
        return os.getpid() == self._owner and self._process.poll() is None

    def finds_our_modules(self) -> bool:
        """Whether it looks for modules where this process does, as plug-ins may need."""
        return self._path == sys.path

    def terminate(self) -> None:
        """End it, and what it has started, at once."""
        self._is_ended_by_us = True
        if os.getpid() != self._owner or self._process.returncode is not None:
            return
        if sys.platform == "win32":
            self._process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def call(self, stage: str, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Call a function in it, as `call` does."""
        start = self._said.seek(0, os.SEEK_END)
        request = pickle.dumps((function, args, kwargs), protocol=pickle.HIGHEST_PROTOCOL)
        try:
            with ended_at_request(self.terminate):
                reply = self._exchange(request)
        except BaseException:  # KeyboardInterrupt too: nobody waits for the answer any more
            self.terminate()
            self._process.wait()
            raise
        if reply is None:
            raise self._death(stage, start)
        if said := self._said_since(start):
            sys.stderr.write(said)
        is_result, value = pickle.loads(reply)
        if not is_result:
            raise value
        return value  # type: ignore[no-any-return]

    def _exchange(self, request: bytes) -> bytes | None:
        """The reply to a request; None where the child dies before it is given."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(len(request).to_bytes(_HEADER_BYTES))
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        header = self._process.stdout.read(_HEADER_BYTES)
        size = int.from_bytes(header)
        reply = self._process.stdout.read(size)
        return reply if len(header) == _HEADER_BYTES and len(reply) == size else None

    def _death(self, stage: str, start: int) -> BaseException:
        code = self._process.wait()
        if self._is_ended_by_us:
            return KeyboardInterrupt(f"ended when {stage}")
        lines = self._said_since(start).strip().splitlines()
        last = f" Its last words: {lines[-1]}" if lines else ""
        return NativeCrashError(
            f"The process of native code {_how(code)} when {stage}.{last}",
            hint="It is a fault of that library, or this machine is out of memory; nothing else was lost.",
        )

    def _said_since(self, start: int) -> str:
        self._said.seek(start)
        return self._said.read().decode(errors="replace")


def _how(code: int) -> str:
    """The way in which a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    words = signal.strsignal(-code)
    return f"died of {name}{f' ({words})' if words else ''}"


def _end(process: "subprocess.Popen[bytes]", said: Any, owner: int) -> None:
    """End a child that nobody needs any more; a forked process leaves it to the one that started it."""
    if os.getpid() != owner:
        return
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()  # at which it ends by itself
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    said.close()
