"""The process of native code: what goes there comes back, and whatever ends it ends nothing else."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prunec.passes import interruption
from prunec.passes.errors import InputError, MissingDependencyError, NativeCrashError
from prunec.runtime import children
from prunec.runtime.children import call
from tests.runtime import native

SECONDS = 30


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_one_child_serves_all_calls_of_a_thread_from_a_group_of_its_own() -> None:
    first, second = (call("it ran", native.pid_and_group) for _ in range(2))
    assert first == second
    assert first[0] != os.getpid()
    assert first[1] == first[0] != os.getpgrp()
    others: list[tuple[int, int]] = []
    thread = threading.Thread(target=lambda: others.append(call("it ran", native.pid_and_group)))
    thread.start()
    thread.join()
    assert others[0] != first
    until(lambda: not lives(others[0][0]))  # it ends with its thread


def test_arrays_and_errors_come_back_as_they_are() -> None:
    array = np.random.default_rng(0).standard_normal((300, 3, 32, 32)).astype(np.float32)
    assert np.array_equal(call("it ran", native.same, array), array)
    with pytest.raises(InputError, match=r"The file is broken\.") as caught:
        call("it ran", native.refuse)
    assert (caught.value.message, caught.value.hint) == ("The file is broken.", "Copy it again.")
    with pytest.raises(RuntimeError, match="Stubborn: stubborn"):
        call("it ran", native.refuse_stubbornly)


def test_what_is_printed_there_is_no_reply(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("it ran", native.print_something) == "done"
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "on standard output\n")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGKILL])
def test_a_death_is_told_with_its_signal_and_its_stage(number: signal.Signals) -> None:
    before = call("it ran", native.pid_and_group)
    with pytest.raises(NativeCrashError, match=rf"died of {number.name} .* when it parsed the file") as caught:
        call("it parsed the file", native.die_by, number, "free(): invalid pointer\n")
    assert "Its last words: free(): invalid pointer" in caught.value.message
    assert caught.value.exit_code == MissingDependencyError.exit_code == 4
    assert call("it ran", native.pid_and_group) != before


def test_a_library_that_ends_the_process_is_a_death_too() -> None:
    with pytest.raises(NativeCrashError, match="ended with exit code 3 when it ran"):
        call("it ran", native.leave, 3)


def test_a_request_to_stop_ends_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "_request", type(interruption._request)())
    started = tmp_path / "started"

    def ask() -> None:
        until(started.exists)
        interruption.ask_to_stop(signal.SIGINT)

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="ended when it waited"):
        call("it waited", native.ignore_signals_and_wait, started)
    thread.join()


def test_an_interrupted_call_leaves_no_child(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Stop

    before, started = signal.signal(signal.SIGUSR1, interrupt), tmp_path / "started"

    def send() -> None:
        until(lambda: started.exists() and started.read_text() != "")
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with pytest.raises(Stop):
            call("it waited", native.wait_after, started)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert not lives(int(started.read_text()))


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = (
        "from pathlib import Path; from prunec.runtime.children import call; from tests.runtime import native; "
        f"call('it waited', native.wait_after, Path({str(started)!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: started.exists() and started.read_text() != "")
    parent.kill()
    parent.wait()
    until(lambda: not lives(int(started.read_text())))


def test_a_script_without_a_main_guard_calls_it_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from prunec.runtime.children import call\nfrom tests.runtime import native\n"
        "print('here', call('it ran', native.same, 5))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=True)
    assert (run.stdout, run.stderr) == ("here 5\n", "")


def test_a_forked_process_gets_a_child_of_its_own() -> None:
    mine = call("it ran", native.pid_and_group)[0]
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(call("it ran", native.pid_and_group)[0]))
    process.start()
    assert receiver.recv() != mine
    process.join()
    assert call("it ran", native.pid_and_group)[0] == mine


def test_a_crash_leaves_no_core_file_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        with pytest.raises(NativeCrashError):
            children.Child().call("it ran", native.die_by, signal.SIGSEGV)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert list(tmp_path.iterdir()) == []


def test_it_has_the_libraries_of_engines_and_no_torch() -> None:
    loaded = call("it ran", native.modules)
    assert {"onnx", "onnxruntime"} <= loaded
    assert "torch" not in loaded
