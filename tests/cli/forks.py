"""Processes of Python that start with what every command loads: copies of one that has run a command, without torch."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: A copy ends as any process does, or is ended after a minute.
_SERVER = """
import contextlib, json, os, signal, sys
from prunec.compiler.cli.main import run
with contextlib.redirect_stdout(sys.stderr):
    assert run(["compile", "model.pt", "--target", "cpu", "--dry-run"]) == 0
assert "torch" not in sys.modules, "a dry run loads torch"
for line in sys.stdin:
    case = json.loads(line)
    sys.stderr.flush()
    if not (process := os.fork()):
        signal.alarm(60)
        for stream, path in enumerate((os.devnull, case["out"], case["err"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), stream)
        os.chdir(case["folder"])
        exec(case["code"], {"__name__": "__main__"})
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Forks:
    """A process that runs code in copies of itself; ``scratch`` has its files."""

    server: "subprocess.Popen[str]"
    scratch: Path

    def run(self, code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
        """Run code in a folder."""
        assert self.server.stdin is not None and self.server.stdout is not None
        paths = {stream: self.scratch / stream for stream in ("out", "err")}
        for path in paths.values():
            path.unlink(missing_ok=True)
        case = {"code": code, "folder": str(folder), **{stream: str(path) for stream, path in paths.items()}}
        self.server.stdin.write(json.dumps(case) + "\n")
        self.server.stdin.flush()
        ended = self.server.stdout.readline()
        assert ended, f"the process that is copied has ended: {(self.scratch / 'server').read_text()}"
        return subprocess.CompletedProcess(code, int(ended), *(path.read_text("utf-8") for path in paths.values()))


@contextmanager
def forks(scratch: Path) -> Iterator[Forks]:
    """A process that runs code in copies of itself, for the while; its files, among them a project, lie in a folder."""
    (scratch / "model.pt").write_bytes(b"weights")
    (scratch / "prunec.toml").write_text('[model]\nfactory = "nowhere:network"\ninput = [1, 8, 8]\n')
    command = [sys.executable, "-c", _SERVER]
    with (
        (scratch / "server").open("w") as said,
        subprocess.Popen(
            command, text=True, cwd=scratch, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
        ) as server,
    ):
        yield Forks(server, scratch)
