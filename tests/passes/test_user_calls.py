"""Whatever the user's code does, it does to itself: errors, hanging, printing, and what belongs to the process."""

import io
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunec.passes.errors import InputError, UsageError
from prunec.passes.user_calls import call_user_code, defined_at, user_code_rules


class Odd(BaseException):
    def __str__(self) -> str:
        raise ValueError("no words")


def raises(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no\nsuch thing"), "ValueError: no."),
        (StopIteration(), "StopIteration."),
        (SystemExit(0), "SystemExit: 0."),
        (GeneratorExit(), "GeneratorExit."),
        (BaseException("odd"), "BaseException: odd."),
        (KeyboardInterrupt(), "KeyboardInterrupt."),
        (OSError(28, "No space left on device"), "OSError: .*No space left on device."),
        (Odd(), "Odd: it has no text."),
    ],
)
@pytest.mark.parametrize("timeout_s", [None, 60.0])
def test_whatever_is_raised_is_told_with_the_line(error: BaseException, words: str, timeout_s: float | None) -> None:
    line = raises.__code__.co_firstlineno + 1
    with (
        user_code_rules(timeout_s=timeout_s),
        pytest.raises(
            InputError, match=rf"The data function failed at .*test_user_calls\.py:{line}: {words}"
        ) as caught,
    ):
        call_user_code("data function", raises, error, hint="Mend it.")
    assert caught.value.hint == "Mend it."


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), UsageError("x")]
)
def test_what_is_not_the_code_s_own_goes_on(error: BaseException) -> None:
    with pytest.raises(type(error)):
        call_user_code("loss function", raises, error)


def test_an_interruption_from_outside_stays_one() -> None:
    import _thread

    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def works() -> None:
        _thread.interrupt_main()
        for _ in range(10**6):
            pass

    try:
        with pytest.raises(KeyboardInterrupt):
            call_user_code("loss function", works)
    finally:
        signal.signal(signal.SIGINT, before)


def test_errors_in_a_library_name_the_definition_of_what_called_it() -> None:
    line = test_errors_in_a_library_name_the_definition_of_what_called_it.__code__.co_firstlineno
    with pytest.raises(InputError, match=rf"failed \(.*test_user_calls\.py:{line + 3}\): TypeError: "):
        call_user_code("metric", lambda outputs: outputs, 1, 2)


def test_syntax_errors_name_their_own_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("x = 1\nx = = 2\n")
    with pytest.raises(InputError, match=r"failed at .*broken\.py:2: SyntaxError"):
        call_user_code("module", compile, path.read_text(), str(path), "exec")


@pytest.mark.parametrize("hangs", [lambda: time.sleep(60), lambda: threading.Event().wait(60)])
def test_what_hangs_is_given_up(hangs: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stdout, started = sys.stdout, time.monotonic()
    with (
        user_code_rules(timeout_s=0.2, prints_to=io.StringIO()),
        pytest.raises(InputError, match=r"took longer than 0.2 s at .*test_user_calls\.py:\d+, and was given up"),
    ):
        call_user_code("data function", hangs)
    assert time.monotonic() - started < 30
    assert sys.stdout is stdout


def test_what_is_in_time_gives_its_value_and_keeps_its_gradient() -> None:
    weight = torch.ones(3, requires_grad=True)
    with user_code_rules(timeout_s=60.0):
        loss = call_user_code("loss function", (weight * 2).sum)
        with torch.no_grad():
            assert not call_user_code("metric", torch.is_grad_enabled)
        with torch.autocast("cpu", torch.bfloat16):
            assert call_user_code("loss function", lambda: torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    loss.backward()
    assert torch.equal(weight.grad, torch.full((3,), 2.0))


def test_what_is_printed_goes_where_it_may(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    with user_code_rules(prints_to=stream):
        call_user_code("metric", print, "loud")
    call_user_code("metric", print, "as ever")
    assert stream.getvalue() == "loud\n"
    assert capsys.readouterr().out == "as ever\n"


def test_what_belongs_to_the_process_stays() -> None:
    def meddles() -> None:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        np.seterr(all="raise")
        warnings.simplefilter("ignore")

    before = (torch.get_default_dtype(), torch.get_default_device(), np.geterr(), list(warnings.filters))
    call_user_code("data function", meddles)
    assert (torch.get_default_dtype(), torch.get_default_device(), np.geterr(), list(warnings.filters)) == before
    assert torch.is_grad_enabled()
    assert torch.ones(1).device.type == "cpu"


def test_the_working_directory_is_the_code_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs").mkdir()
    call_user_code("data function", os.chdir, "theirs")
    assert Path.cwd() == tmp_path
    assert call_user_code("reading", Path.cwd) == tmp_path / "theirs"
    assert Path.cwd() == tmp_path
    call_user_code("reading", os.chdir, "..")
    assert call_user_code("reading", Path.cwd) == tmp_path


def test_definitions_are_found_of_functions_and_objects() -> None:
    line = raises.__code__.co_firstlineno
    assert defined_at(raises).endswith(f"test_user_calls.py:{line})")
    assert "test_user_calls.py:" in defined_at(Odd())
    assert defined_at(print) == defined_at(torch.nn.functional.cross_entropy) == defined_at(3) == ""


@pytest.mark.parametrize(
    ("ends", "code"),
    [("raise SystemExit(3)", 3), ("raise SystemExit", 0), ("raise SystemExit('so')", 1), ("1 / 0", 1), ("pass", 0)],
)
def test_a_process_that_user_code_forks_ends_with_it(ends: str, code: int) -> None:
    script = (
        "import os\nfrom prunec.passes.user_calls import call_user_code\n"
        f"def fork():\n    if os.fork() == 0:\n        {ends}\n        return\n    return os.wait()[1]\n"
        "status = call_user_code('data function', fork)\nprint('once', os.waitstatus_to_exitcode(status))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"once {code}\n"), done.stderr
