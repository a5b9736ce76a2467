"""The application, and the one place where errors become messages and exit codes."""

import contextlib
import io
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from prunec.compiler.cli.build import build
from prunec.compiler.cli.compare import compare
from prunec.compiler.cli.compile import compile_
from prunec.compiler.cli.debug import debug
from prunec.compiler.cli.doctor import doctor
from prunec.compiler.cli.ending import leave
from prunec.compiler.cli.evaluate import eval_
from prunec.compiler.cli.inspect import inspect
from prunec.compiler.cli.measure_costs import measure_costs
from prunec.compiler.cli.methods import methods
from prunec.compiler.cli.output import echo
from prunec.compiler.cli.plan import plan
from prunec.compiler.cli.profile import profile
from prunec.compiler.cli.schedule import schedule
from prunec.compiler.cli.stopping import INTERRUPTED, exit_code, listen
from prunec.compiler.cli.targets import targets
from prunec.compiler.cli.verify import verify
from prunec.compiler.machine.memory_limit import exhausted_limit_mb
from prunec.compiler.report.last_line import result_line
from prunec.passes.errors import EnvironmentFailure, PrunecError, UsageError, first_line
from prunec.passes.interruption import asked_to_stop
from prunec.passes.user_calls import user_code_rules

BUG = 1
#: What Typer gives back for a `KeyboardInterrupt`, which `Stopped` is.
_INTERRUPTED = 130
#: The reader of a pipe is gone, as behind `| head`: what the shell gives for programs that this ends.
BROKEN_PIPE = 141
#: What libraries that aren't written in Python say where memory is short; the second while they are loaded.
_NO_MEMORY = ("can't allocate memory", "failed to map segment")
_MORE_MEMORY = "Use a machine with more, or a smaller network or batch."
#: Commands that judge: their last line says PASSED or FAILED, also where an error ends them.
_JUDGING = ("compile", "verify", "build")

app = typer.Typer(
    name="prunec",
    help="Compile a trained PyTorch checkpoint to a pruned, 2:4-sparse inference engine.",
    add_completion=False,
    rich_markup_mode="rich",
)
for _command in (
    compile_,
    inspect,
    plan,
    eval_,
    profile,
    measure_costs,
    verify,
    build,
    schedule,
    compare,
    methods,
    targets,
    doctor,
):
    app.command(_command.__name__.removesuffix("_").replace("_", "-"))(_command)

app.add_typer(debug, name="debug")


def _print_version(asked: bool) -> None:
    if asked:
        from prunec.compiler.machine.versions import tool_version

        echo(f"prunec {tool_version('prunec') or '(not installed)'}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the ``prunec`` script."""
    _keep_stdout()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # paths need not be text: what can't be encoded is printed escaped
            stream.reconfigure(errors="backslashreplace")
        elif stream is None:  # it was closed by who started this
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - to the end of the process
    codes: list[int] = []
    listen(lambda code: "" if codes else _last_line(_given(None), code))
    codes.append(run())
    try:
        sys.stdout.flush()
    except OSError:  # what was printed before went through, or has been told of
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    leave(codes[0])


def _keep_stdout() -> None:
    """Keep standard output for results: what doesn't ask `sys.stdout`, as code in C and children do, goes to stderr."""
    if sys.stdout is None:  # it was closed by who started this
        return
    with contextlib.suppress(OSError):  # one of the two may be closed
        own = os.fdopen(os.dup(1), "w", buffering=1 if os.isatty(1) else -1, encoding=sys.stdout.encoding)
        os.dup2(2, 1)
        sys.stdout = own


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line after ``prunec``; by default this process's.

    Returns:
        The exit code.
    """
    arguments = _given(arguments)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' warnings are for those who call them; python -W shows them
    try:
        application = typer.main.get_command(app)
        with user_code_rules(prints_to=sys.stderr):
            result = application.main(arguments, prog_name="prunec", standalone_mode=False, obj=_line(arguments))
        code = result if isinstance(result, int) else 0
    except (Exception, SystemExit) as error:  # noqa: BLE001 - what isn't the machine's fault nor the user's is a bug
        # Foreign code may turn what was raised to stop it into an error of its own.
        code = _INTERRUPTED if asked_to_stop() else _failed(error, arguments)
        if code in (0, BROKEN_PIPE):
            return code
    else:
        if code != _INTERRUPTED:
            if asked_to_stop():
                _say("It was too late to stop: the work is complete.")
            return code
    if code == _INTERRUPTED:
        code = exit_code(asked_to_stop() or signal.SIGINT)
        _say(INTERRUPTED)
    if line := _last_line(arguments, code):
        _say(line, err=False)
    return code


def _given(arguments: Sequence[str] | None) -> list[str]:
    return list(sys.argv[1:] if arguments is None else arguments) or ["--help"]


def _line(arguments: Sequence[str]) -> str:
    """The command line, as reports and last lines have it."""
    return shlex.join(["prunec", *arguments]).encode(errors="backslashreplace").decode()


def _last_line(arguments: Sequence[str], code: int) -> str:
    """The last line of a command that judges and was ended by an error; empty for the others."""
    if arguments[0] not in _JUDGING:
        return ""
    return result_line(False, [f"exit code {code}"], _line(arguments))


def _failed(error: Exception | SystemExit, arguments: Sequence[str]) -> int:
    """Say what ended a command; the exit code."""
    if isinstance(error, typer.TyperException):  # the command line itself is wrong
        known = arguments[0] in (command.name for command in app.registered_commands)
        command = f"prunec {arguments[0]}" if known else "prunec"
        _say(f"Error: {error.format_message()}\nTry '{command} --help'.")
        return error.exit_code
    if isinstance(error, PrunecError) and not _lacks_memory(error):
        if error.exit_code:  # one of several processes that train together ends with 0
            _say(f"Error: {error}")
        return error.exit_code
    if isinstance(error, SystemExit):  # not of the command line's own: it gives its codes back
        if isinstance(error.__context__, BrokenPipeError):
            return BROKEN_PIPE
        _say(f"Error: code of the project ended the program: exit({error.code!r}).")
        return UsageError.exit_code
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    return _unexpected(error)


def _unexpected(error: Exception) -> int:
    if (failure := _of_the_system(error)) is not None:
        _say(f"Error: {failure}")
        return EnvironmentFailure.exit_code
    _say("".join(traceback.format_exception(error)))
    _say("This is a bug of prunec: please report it with the lines above.")
    return BUG


def _of_the_system(error: Exception) -> str | None:
    """What the operating system refused, in its own words; None where an error isn't its."""
    if _lacks_memory(error):
        return f"out of memory.\n{_MORE_MEMORY}"
    if not isinstance(error, OSError) and (limit_mb := exhausted_limit_mb()) is not None:
        return f"out of the {limit_mb} MB of memory that are allowed (ulimit -v): {first_line(error)}\n{_MORE_MEMORY}"
    if not isinstance(error, OSError):
        # Libraries in C++ that write through a file of Python's raise their own error where that fails.
        cause = error.__cause__ or error.__context__
        return _of_the_system(cause) if isinstance(error, RuntimeError) and isinstance(cause, OSError) else None
    names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{error.strerror or str(error) or type(error).__name__}: {names or 'no file named'}."


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, is a lack of memory."""
    while error is not None:
        if isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _say(text: str, *, err: bool = True) -> None:
    """Print a message, where that is possible: the disk that a log lies on may be full."""
    with contextlib.suppress(OSError):
        echo(text, err=err)
