"""Run the networks: ``python -m tests.wild [--jobs N] [--only NAME]... [--resume]``. Ends with 1 if a bar is missed."""

import argparse
import sys
from pathlib import Path

from tests.pages import write_section
from tests.wild import packages
from tests.wild.networks import NETWORKS
from tests.wild.networks.environment import folder
from tests.wild.report import SECTION, drawn, failures_list, figures, figures_table, networks_table, section
from tests.wild.rows import STAGES, Row, stored
from tests.wild.workers import Workers


def main() -> int:
    """Examine the networks asked for, tell of each as it ends, then of all that are known."""
    options = _options()
    if not options.installed:
        packages.install(options.packages)
    known = stored(options.results, set(NETWORKS)) if options.only or options.resume else {}
    asked = [name for name in options.only or NETWORKS if options.only or name not in known]
    with_engine = drawn(list(NETWORKS))
    workers = Workers(options.results, options.packages, with_engine, options.seconds)
    for number, row in enumerate(workers.examined({name: NETWORKS[name].package for name in asked}, options.jobs), 1):
        known[row.name] = row
        _tell(row, f"{number}/{len(asked)}")
    rows = [known[name] for name in NETWORKS if name in known]
    found = figures(rows, with_engine, options.jobs)
    print(f"\n{networks_table(rows)}\n{failures_list(rows)}\n{figures_table(found)}")
    if options.write_docs:
        write_section(options.page, SECTION, section(rows, with_engine))
        print(f"Report: {options.page}")
    return int(not all(figure.is_met for figure in found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.wild", description="Check prunec on networks of packages.")
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time, each on one core")
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=NETWORKS, help="examine this network; others keep their rows"
    )
    parser.add_argument("--resume", action="store_true", help="examine what has no row yet")
    parser.add_argument("--results", type=Path, default=Path("build/wild"), help="folder of the rows")
    parser.add_argument("--packages", type=Path, default=folder(), help="folder of the installed packages")
    parser.add_argument("--installed", action="store_true", help="take the packages as they are there")
    parser.add_argument("--seconds", type=int, default=240, help="processor time for one network")
    parser.add_argument("--write-docs", action="store_true", help="write the section of the page")
    parser.add_argument("--page", type=Path, default=Path("docs/coverage.md"), help="the page")
    return parser.parse_args()


def _tell(row: Row, progress: str) -> None:
    told = " ".join(f"{STAGES[stage]}={outcome.verdict}" for stage, outcome in row.outcomes.items())
    print(f"{progress:>7} {row.name:40} {row.seconds:4.0f} s {told}")
    for stage, reason in row.failures.items():
        print(f"        {STAGES[stage]}: {reason}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
