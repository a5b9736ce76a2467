"""Time of `prunec --help` against a bare Typer app, interleaved. Run: python -m benchmarks.cli_startup"""

import subprocess
import sys
import time
from dataclasses import dataclass

#: `prunec --help` may take this many times as long as the bare app.
LIMIT = 1.5
PRUNEC = "from prunec.compiler.cli.main import run; run(['--help'])"
#: As many commands as prunec has, with an option each, and nothing behind them.
BARE = """
import typer
app = typer.Typer(help="Bare.")
def command(path: str, option: int = 1) -> None:
    "Do nothing."
for name in (
    "compile", "plan", "measure-costs", "inspect", "eval", "profile", "compare", "schedule", "verify", "build",
    "targets", "doctor", "methods", "debug",
):
    app.command(name)(command)
app(["--help"], standalone_mode=False)
"""


@dataclass(frozen=True)
class Startup:
    """The quickest of several whole processes, milliseconds: what else the machine does can only add to them."""

    prunec_ms: float
    bare_ms: float

    @property
    def ratio(self) -> float:
        return self.prunec_ms / self.bare_ms


def measure(runs: int = 20) -> Startup:
    """Time both `runs` times, in turn, so that a drift of the machine meets both; one run of each comes before."""
    times: dict[str, list[float]] = {PRUNEC: [], BARE: []}
    for run in range(runs + 1):
        for code, taken_ms in times.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            if run:
                taken_ms.append(1000 * (time.perf_counter() - started))
    return Startup(min(times[PRUNEC]), min(times[BARE]))


if __name__ == "__main__":
    result = measure()
    print(
        f"prunec --help {result.prunec_ms:.0f} ms, bare Typer app {result.bare_ms:.0f} ms: "
        f"{result.ratio:.2f}x, at most {LIMIT}x"
    )
    sys.exit(result.ratio > LIMIT)
