"""The boundary through which all code of the user runs: data, factories, losses, metrics, augmentations.

Whatever such code does, it does to itself alone: what it prints doesn't mix with prunec's output, the working folder,
torch's defaults, warning filters and NumPy's error handling are as they were, and whatever it raises is an `InputError`
that names the line of the user's file. Imports neither torch nor numpy, and asks them only where they are loaded.
"""

import dis
import inspect
import os
import sys
import sysconfig
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from traceback import walk_stack, walk_tb
from types import FrameType
from typing import Any, NoReturn, TextIO

from prunec.passes.errors import InputError, PrunecError, first_line
from prunec.passes.lent_streams import lent_streams

_RAISE = dis.opmap["RAISE_VARARGS"]
_PATHS = sysconfig.get_paths()
_LIBRARY, _PACKAGES = _PATHS["stdlib"], (_PATHS["purelib"], _PATHS["platlib"])


@dataclass(frozen=True)
class UserCodeRules:
    """The rules that the user's code runs by.

    Attributes:
        timeout_s: Seconds that one call may take; None for any time. Calls run in a thread of their own then.
        prints_to: Stream that gets what it prints; None leaves that where it goes.
    """

    timeout_s: float | None = None
    prints_to: TextIO | None = None


_RULES: ContextVar[UserCodeRules] = ContextVar("user_code_rules", default=UserCodeRules())  # noqa: B039 - frozen


@contextmanager
def user_code_rules(**changes: Any) -> Iterator[None]:
    """Change fields of `UserCodeRules` for a while, in this thread."""
    token = _RULES.set(replace(_RULES.get(), **changes))
    try:
        yield
    finally:
        _RULES.reset(token)


def call_user_code(
    what: str, function: Callable[..., Any], *arguments: object, code: object = None, hint: str | None = None
) -> Any:
    """Call a function that the user wrote.

    Args:
        what: Name of the function in messages, such as "loss function".
        function: The function, or one of prunec's that runs the user's code and nothing else that can fail.
        arguments: Arguments of the function.
        code: The user's function or object, where ``function`` is one of prunec's.
        hint: Advice where it fails.

    Raises:
        InputError: The function raises anything, `SystemExit` included, or takes too long.
        MemoryError: There is not enough memory.
        KeyboardInterrupt: The program was interrupted meanwhile.
    """
    code = function if code is None else code
    try:
        with user_code_borders():
            return _in_time(partial(function, *arguments))
    except (PrunecError, MemoryError):
        raise
    except _TakesTooLong as error:
        raise InputError(f"The {what} {error}", hint=hint) from None
    except BaseException as error:
        if _is_foreign(error):
            raise
        where = _place_of(error) or defined_at(code)
        raise InputError(f"The {what} failed{where}: {_words(error)}", hint=hint) from error


@contextmanager
def user_code_borders() -> Iterator[None]:
    """Keep what belongs to the whole process as it is, for code that is the user's only in part, such as a capture.

    A process that such code forks ends here at the latest: prunec's work is its parent's.
    """
    stream, process = _RULES.get().prints_to, os.getpid()
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    with (
        warnings.catch_warnings(),
        nullcontext() if stream is None else lent_streams(stream),
        nullcontext() if numpy is None else numpy.errstate(),
        nullcontext() if torch is None else _torch_defaults(torch),
        _DIRECTORY.lent(),
    ):
        try:
            yield
        finally:
            if os.getpid() != process:
                _end_fork(sys.exc_info()[1])


def _end_fork(error: BaseException | None) -> NoReturn:
    """End a forked process as Python ends one, without the cleaning up that its parent does too."""
    code: object = error.code if isinstance(error, SystemExit) else None if error is None else 1
    if error is not None and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    elif isinstance(code, str):
        print(code, file=sys.stderr)
    os._exit(code & 0xFF if isinstance(code, int) else 1 if code is not None else 0)


def defined_at(code: object) -> str:
    """`` (FILE:LINE)`` of the definition of a function, or of an object's class; empty where it isn't Python's."""
    code = getattr(code, "func", code)  # functools.partial
    with suppress(TypeError, OSError):
        if not inspect.isroutine(code) and not inspect.isclass(code):
            code = type(code)
        file, (_, line) = inspect.getsourcefile(inspect.unwrap(code)), inspect.getsourcelines(inspect.unwrap(code))
        if file is not None and not _is_library(file):
            return f" ({file}:{max(line, 1)})"
    return ""


def _in_time(call: Callable[[], Any]) -> Any:
    """Call in a thread where there is a limit, and give it up when its time is over: nothing can end what hangs."""
    timeout_s = _RULES.get().timeout_s
    if timeout_s is None:
        return call()
    gotten: list[Any] = []
    raised: list[BaseException] = []
    as_here = _torch_of_this_thread()

    def run() -> None:
        try:
            with as_here():
                gotten.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            raised.append(error)

    thread = threading.Thread(target=partial(copy_context().run, run), daemon=True, name="user code")
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        where = "" if frame is None else _place(list(walk_stack(frame)))
        raise _TakesTooLong(f"took longer than {timeout_s:g} s{where}, and was given up (--data-timeout).")
    if raised:
        raise raised[0]
    return gotten[0]


class _TakesTooLong(Exception):  # noqa: N818 - never leaves this module
    pass


def _torch_of_this_thread() -> Callable[[], AbstractContextManager[Any]]:
    """Puts what torch keeps for each thread, gradients and autocasting, into force in another thread."""
    torch = sys.modules.get("torch")
    if torch is None:
        return nullcontext
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    devices = {"cpu", "cuda" if torch.cuda.is_available() else "cpu"}
    cast = {device: (torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)) for device in devices}

    def same() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(torch.inference_mode(inference))
        stack.enter_context(torch.set_grad_enabled(gradients))
        for device, (dtype, enabled) in cast.items():
            stack.enter_context(torch.autocast(device, dtype, enabled))
        return stack

    return same


@contextmanager
def _torch_defaults(torch: Any) -> Iterator[None]:
    dtype, device, gradients = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        torch._C._set_grad_enabled(gradients)


@dataclass
class _Directory:
    """The working directory that the user's code chose, which is its own alone: it finds it again in later calls."""

    theirs: Path | None = None

    @contextmanager
    def lent(self) -> Iterator[None]:
        ours = _working_directory()
        with suppress(OSError):
            if self.theirs is not None:
                os.chdir(self.theirs)
        try:
            yield
        finally:
            now = _working_directory()
            if ours is not None and now != ours:
                self.theirs = now
                os.chdir(ours)
            elif self.theirs is not None:
                self.theirs = None


_DIRECTORY = _Directory()


def _working_directory() -> Path | None:
    """The working directory; None where it was removed."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _is_foreign(error: BaseException) -> bool:
    """Whether an error isn't the user's code's own: a lack of memory, or an interruption from outside."""
    if "can't allocate memory" in _words(error):  # torch's
        return True
    if not isinstance(error, KeyboardInterrupt):
        return False
    # An interruption comes between two instructions, and in a handler's frame: only code itself raises at a `raise`.
    for frame, position in reversed([(tb.tb_frame, tb.tb_lasti) for tb in _tracebacks(error)]):
        return _is_ours(frame) or frame.f_code.co_code[position] != _RAISE
    return True


def _tracebacks(error: BaseException) -> Iterator[Any]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _words(error: BaseException) -> str:
    """Type and first line of an error."""
    try:
        text = first_line(error)
    except BaseException:  # noqa: BLE001 - the text of an error is the user's code, too
        text = "it has no text"
    name = type(error).__name__
    return f"{name}." if text in ("", name) else f"{name}: {text.removesuffix('.')}."


def _place_of(error: BaseException) -> str:
    """`` at FILE:LINE`` of the user's innermost line that an error came through; empty where there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    return _place(list(walk_tb(error.__traceback__))[::-1])


def _place(frames: list[tuple[FrameType, int]]) -> str:
    """The first of the frames, innermost first, that is the user's; a library's that isn't torch where none is."""
    places = [(frame.f_code.co_filename, line) for frame, line in frames if not _is_ours(frame)]
    own = [place for place in places if not _is_library(place[0])]
    others = [place for place in places if place[0].startswith(_PACKAGES) and f"{os.sep}torch{os.sep}" not in place[0]]
    for file, line in [*own, *others]:
        return f" at {file}:{line}"
    return ""


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("prunec.")


def _is_library(file: str) -> bool:
    return file.startswith((_LIBRARY, *_PACKAGES, "<frozen"))
