"""Errors of libraries that ran out of the memory that a process may have."""

import resource
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from prunec.compiler.cli import main
limit, used_mb = 2000 << 20, int(sys.argv[1])
block = bytearray(used_mb << 20)
if sys.argv[2] == "limited":
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main._unexpected(eval(sys.argv[3])))
"""


ERROR = "RuntimeError('could not create a primitive')"


@pytest.mark.parametrize(
    ("used_mb", "limits", "code"), [(1850, "limited", 10), (1000, "limited", 1), (1850, "unlimited", 1)]
)
def test_an_error_near_the_limit_is_the_machines(used_mb: int, limits: str, code: int) -> None:
    if resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY:
        pytest.skip("this process's memory is limited already")
    command = [sys.executable, "-c", SCRIPT, str(used_mb), limits, ERROR]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert ("of the 2000 MB of memory that are allowed" in done.stderr) == (code == 10)
    assert "could not create a primitive" in done.stderr


def test_what_the_system_refuses_is_told_near_the_limit_too() -> None:
    full = "OSError(28, 'No space left on device', 'model.onnx')"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "1850", "limited", full], capture_output=True, text=True, check=False
    )
    assert done.returncode == 10, done.stderr
    assert "No space left on device: model.onnx" in done.stderr
