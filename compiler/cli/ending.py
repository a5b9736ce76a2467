"""The end of the process, which what the project's code has left running doesn't hold up for long."""

import contextlib
import os
import sys
import threading
import time
from typing import NoReturn

#: Seconds that threads and processes of the project's code have to end by themselves.
PATIENCE_S = 10.0


def leave(code: int) -> NoReturn:
    """End this process. Python waits for threads and processes that were started, and here not for ever."""
    threading.Thread(target=_end_what_is_left, args=(code,), name="ending", daemon=True).start()
    sys.exit(code)


def _end_what_is_left(code: int) -> None:
    time.sleep(PATIENCE_S)
    threads = [one.name for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
    library = sys.modules.get("multiprocessing")
    processes = library.active_children() if library is not None else []
    if not threads and not processes:  # Python itself takes its time
        return
    names = ", ".join([*threads, *(process.name for process in processes)])
    text = f"Code of the project has left running, and it is ended: {names}.\n"
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace"))
    for process in processes:
        process.kill()
    os._exit(code)
