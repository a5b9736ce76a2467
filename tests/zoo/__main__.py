"""Run the zoo: ``python -m tests.zoo [--jobs N] [--only NAME ...] [--resume]``. Ends with 1 if a network fails."""

import argparse
import json
import sys
from pathlib import Path

from tests.pages import write_section
from tests.zoo.checks import MUTATIONS, Row
from tests.zoo.corpus import BY_NAME, NETWORKS
from tests.zoo.report import SECTION, markdown, summary_table
from tests.zoo.workers import examined


def main() -> int:
    """Check the networks asked for, tell of each as it ends, write the page's section once all 70 are known."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description="Check prunec on 70 architectures.")
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time, each on one core")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=BY_NAME, help="check these networks only")
    parser.add_argument("--resume", action="store_true", help="keep the results of an earlier run")
    parser.add_argument("--results", type=Path, default=Path("zoo/results.jsonl"), help="one JSON line per network")
    parser.add_argument(
        "--page", type=Path, default=Path("docs/coverage.md"), help="its section is written where all are known"
    )
    options = parser.parse_args()

    known = _read(options.results) if options.resume else {}
    asked = [name for name in options.only or BY_NAME if name not in known]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with options.results.open("a" if options.resume else "w") as file:
        for row in examined(asked, options.jobs):
            known[row.name] = row
            file.write(json.dumps(row.to_json()) + "\n")
            file.flush()
            _tell(row, f"{len(known)}/{len(known.keys() | set(asked))}")
    rows = [known[network.name] for network in NETWORKS if network.name in known]
    print(f"\n{summary_table(rows)}")
    if len(rows) == len(NETWORKS):
        write_section(options.page, SECTION, markdown(rows, MUTATIONS))
        print(f"Report: {options.page}")
    return int(any(row.failures for row in rows))


def _read(path: Path) -> dict[str, Row]:
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [Row(**json.loads(line)) for line in lines]
    return {row.name: row for row in rows}


def _tell(row: Row, progress: str) -> None:
    print(
        f"{progress:>6} {row.name:36} cut {row.cut:6.1%}, exactly {row.cut_exact:6.1%}, "
        f"{sum(row.seconds.values()):4.0f} s {'FAILED' if row.failures else ''}"
    )
    for failure in row.failures:
        print(f"       {failure}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
