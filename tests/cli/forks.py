"""Processes of Python that start with what every command loads: copies of one that has run a command, without torch."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SERVER = """
import contextlib, json, os, sys, traceback
from prunec.compiler.cli.main import run
with contextlib.redirect_stdout(sys.stderr):
    assert run(["compile", "model.pt", "--target", "cpu", "--dry-run"]) == 0
assert "torch" not in sys.modules
for line in sys.stdin:
    case = json.loads(line)
    sys.stdout.flush(), sys.stderr.flush()
    process = os.fork()
    if not process:
        code = 1
        try:
            os.dup2(os.open(case["output"], os.O_WRONLY | os.O_CREAT), 2)
            os.dup2(2, 1)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(case["folder"])
            exec(case["code"], {"__name__": "__main__"})
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Done:
    """Exit code and output, both of them, of a process that has ended."""

    returncode: int
    output: str


@dataclass(frozen=True)
class Forks:
    """A process that runs code in copies of itself."""

    server: "subprocess.Popen[str]"
    output: Path

    def run(self, code: str, folder: Path) -> Done:
        """Run code in a folder."""
        assert self.server.stdin is not None and self.server.stdout is not None
        self.output.unlink(missing_ok=True)
        self.server.stdin.write(json.dumps({"code": code, "folder": str(folder), "output": str(self.output)}) + "\n")
        self.server.stdin.flush()
        return Done(int(self.server.stdout.readline()), self.output.read_text(encoding="utf-8"))


@contextmanager
def forks(scratch: Path) -> Iterator[Forks]:
    """A process that runs code in copies of itself, for the while; its files, among them a project, lie in a folder."""
    (scratch / "model.pt").write_bytes(b"weights")
    (scratch / "prunec.toml").write_text('[model]\nfactory = "nowhere:network"\ninput = [1, 8, 8]\n')
    command = [sys.executable, "-c", _SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, cwd=scratch, **pipes) as server:  # type: ignore[call-overload]
        yield Forks(server, scratch / "output")
