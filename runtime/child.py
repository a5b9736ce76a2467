"""The child of `prunec.runtime.children`: runs functions that arrive on standard input, and replies on standard output.

It ends as soon as its standard input does, also in the middle of a call: so it never outlives its parent.
"""

import os
import pickle
import sys
import threading
import traceback
import warnings
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

import onnx  # noqa: F401 - while the parent is busy: most requests need them
import onnxruntime  # noqa: F401

from prunec.runtime.engines import served  # noqa: F401

_HEADER_BYTES = 8


def main() -> None:
    """Serve until the parent ends."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what libraries print is no reply
    _leave_no_core_file()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    arrived: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(requests, arrived), daemon=True).start()
    while True:
        reply = _answer(arrived.get())
        replies.write(len(reply).to_bytes(_HEADER_BYTES))
        replies.write(reply)
        replies.flush()


def _leave_no_core_file() -> None:
    """Keep a crash from writing the memory of this process into the working directory."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _receive(requests: BinaryIO, arrived: "SimpleQueue[bytes]") -> None:
    while header := requests.read(_HEADER_BYTES):
        arrived.put(requests.read(int.from_bytes(header)))
    os._exit(0)


def _answer(request: bytes) -> bytes:
    """The pickled result of a request, or the error that it raised, each with whether it is a result."""
    try:
        function, args, kwargs = pickle.loads(request)
        return _pickled((True, function(*args, **kwargs)))
    except BaseException as error:  # noqa: BLE001 - the parent raises it
        return _pickled_error(error)


def _pickled(reply: tuple[bool, object]) -> bytes:
    return pickle.dumps(reply, protocol=pickle.HIGHEST_PROTOCOL)


def _pickled_error(error: BaseException) -> bytes:
    """An error as it is where it can be pickled, else its text."""
    told = "".join(traceback.format_exception(error))
    try:
        error.add_note(f"In the process of native code:\n{told}")
        reply = _pickled((False, error))
        pickle.loads(reply)
    except Exception:  # noqa: BLE001 - foreign errors refuse in any way
        return _pickled((False, RuntimeError(told)))
    return reply


if __name__ == "__main__":
    main()
