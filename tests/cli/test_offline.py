"""Nothing is sent and nothing is fetched: whole runs under strace open no socket of the internet."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prunec.runtime.offline import ENVIRONMENT, stay_offline

INTERNET = re.compile(r"AF_INET6?\b")


@pytest.mark.long
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(
    "arguments",
    [
        ("compile", "model.pt", "--target", "cpu", "-o", "x"),
        *(("inspect", "model.pt"), ("eval", "model.pt"), ("profile", "model.pt", "--runs", "2"), ("doctor",)),
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_socket_of_the_internet_is_opened(project: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """With a home of its own, in which a library that reports would leave its identity too."""
    home = tmp_path / "home"
    home.mkdir()
    unset = {"CI", "XDG_CACHE_HOME", *ENVIRONMENT}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | {"HOME": str(home)}
    log = tmp_path / "network.log"
    traced = ["strace", "-f", "-e", "trace=network", "-o", str(log)]
    run = subprocess.run(
        [*traced, sys.executable, "-m", "prunec.compiler", *arguments],
        cwd=project,
        env=environment | {"TMPDIR": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert not INTERNET.findall(log.read_text(encoding="utf-8", errors="replace"))
    left = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    assert not [name for name in left if "icrosoft" in name or name.endswith(".ses")], left


def test_strace_would_show_one() -> None:
    """What the test above looks for is what strace prints."""
    assert INTERNET.search("123 socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP) = 3")
    assert INTERNET.search("123 socket(AF_INET6, SOCK_DGRAM, IPPROTO_IP) = 3")
    assert not INTERNET.search("123 socket(AF_UNIX, SOCK_STREAM, 0) = 3")


@pytest.mark.parametrize("first", ["prunec.compiler", "prunec.runtime"])
def test_libraries_are_told_before_they_are_imported(first: str) -> None:
    code = (
        f"import os, sys, {first}.__init__; from prunec.runtime.offline import ENVIRONMENT; "
        "assert not {'onnxruntime', 'huggingface_hub', 'accelerate'} & sys.modules.keys(); "
        "assert ENVIRONMENT.items() <= os.environ.items()"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_what_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    stay_offline()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
    assert os.environ["DO_NOT_TRACK"] == "1"


def test_a_library_that_was_imported_before_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    class Library:
        @staticmethod
        def disable_telemetry_events() -> None:
            told.append(True)

    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", Library)  # type: ignore[arg-type]
    stay_offline()
    assert told == [True]
