"""Some of `make faults` and `make signals`, for `make test-long`."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments",
    [("faults", "--kills", "20", "--example-kills", "0", "--others", "1"), ("signals", "--count", "10")],
    ids=["faults", "signals"],
)
def test_some_of_them(arguments: tuple[str, ...]) -> None:
    module, *options = arguments
    command = [sys.executable, "-m", f"tests.reliability.{module}", *options, "--jobs", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
