"""Ctrl-C and SIGTERM: the first is answered in words wherever the main thread is, the second ends it at once."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunec.compiler.cli.main import run

#: A main thread that never comes back to a place to stop, as within a foreign call.
BUSY = """
import sys, time
from pathlib import Path
from prunec.compiler.cli.stopping import listen
from prunec.compiler.bundle.bundle_writer import BundleWriter
from prunec.passes.interruption import ended_at_request
listen(lambda code: f"FAILED | {code}")
with BundleWriter(Path(sys.argv[1])), ended_at_request(lambda: print("helper ended", flush=True)):
    print("ready", flush=True)
    while True:
        try:
            time.sleep(600)
        except BaseException as error:
            print("raised", error, flush=True)
"""


@pytest.fixture
def busy(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", BUSY, str(tmp_path / "m.bundle")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_the_first_is_answered_at_once_and_the_second_obeyed_at_once(
    busy: "subprocess.Popen[str]", tmp_path: Path, number: int, name: str
) -> None:
    assert busy.stderr is not None
    busy.send_signal(number)
    began = time.monotonic()
    assert busy.stderr.readline().startswith(f"{name}: stopping at the next step.")
    assert time.monotonic() - began < 5
    assert busy.poll() is None
    assert [path.name for path in tmp_path.iterdir()] != []
    busy.send_signal(number)
    out, _ = busy.communicate(timeout=20)
    assert busy.returncode == 128 + number
    assert out.splitlines() == ["helper ended", f"FAILED | {128 + number}"]
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_and_the_sigterm_of_a_launcher_are_one_request(busy: "subprocess.Popen[str]") -> None:
    """A launcher such as torchrun, in the same terminal, sends SIGTERM for the Ctrl-C that both have got."""
    assert busy.stderr is not None
    for number, name in ((signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")):
        busy.send_signal(number)
        assert busy.stderr.readline().startswith(name)
    time.sleep(0.3)
    assert busy.poll() is None


TRACING = BUSY.replace("import ended_at_request", "import ended_at_request, endable_anywhere").replace(
    '    print("ready", flush=True)\n    while True:',
    '    with endable_anywhere():\n     print("ready", flush=True)\n     while True:',
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_where_nothing_is_to_be_saved_the_first_ends_the_process(tmp_path: Path, number: int) -> None:
    """No exception is raised in foreign code, which may die of it."""
    command = [sys.executable, "-c", TRACING, str(tmp_path / "m.bundle")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert out.splitlines() == ["helper ended", f"FAILED | {128 + number}"]
    assert "Interrupted: no result was written." in err
    assert list(tmp_path.iterdir()) == []


def test_a_request_before_such_a_call_is_raised_at_its_begin() -> None:
    script = (
        "import os\nfrom prunec.passes.interruption import *\nask_to_stop(2)\n"
        "try:\n    with endable_anywhere():\n        print('within')\nexcept Stopped:\n    print('stopped')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr


FORKING = """
import multiprocessing, os, sys, time
from prunec.compiler.cli.stopping import listen
from prunec.passes.interruption import asked_to_stop
listen(lambda code: "last line")
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
worker.start()
"""


def test_a_forked_worker_dies_of_its_own_signal_and_tells_nobody() -> None:
    script = FORKING + "worker.terminate(); worker.join(); time.sleep(0.3); print(worker.exitcode, asked_to_stop())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stdout) == (0, "-15 0\n"), done.stderr


def test_one_ctrl_c_of_a_terminal_is_one_though_workers_get_it_too() -> None:
    script = FORKING + (
        "os.setpgrp(); other = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "other.start()\n"
        "time.sleep(0.3); os.killpg(0, 2); other.join(); time.sleep(0.3); print(other.exitcode != 0, asked_to_stop())\n"
        "worker.terminate()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stdout) == (0, "True 2\n"), done.stderr


def test_a_signal_after_the_last_line_changes_nothing() -> None:
    """Python takes its handlers away while it shuts down: a late Ctrl-C would kill what is complete."""
    script = (
        "import os; from prunec.compiler.cli.stopping import listen\n"
        "listen(lambda code: '')\n"
        "class Late:\n    def __del__(self, kill=os.kill, about=(os.getpid(), 2)): kill(*about)\n"
        "late = Late(); late.itself = late; print('done'); del late"  # left to the last collection
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_handlers_belong_to_the_command_line_alone() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    assert run(["targets"]) == 0
    assert [signal.getsignal(number) for number in numbers] == before
