"""Fuzz the readers: ``python -m tests.fuzz_readers [READER ...] [--count 10000] [--jobs 2]``. Ends with 1 for a fault.

Each reader reads its inputs in one process, beside which this one watches: where that dies or hangs, the input is
noted, and another goes on behind it.
"""

import argparse
import faulthandler
import json
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz_readers.harness import Found, fuzz

#: Seconds after which a process that reads one input is ended.
_HANGING_S = 30
_BROKEN = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", help="all by default")
    parser.add_argument("--count", type=int, default=10_000, help="inputs of each reader")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--minutes", type=float, default=45, help="time for all of it; what is left out is said")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    end = time.time() + 60 * options.minutes
    if options.work is not None:
        return _work(options.readers[0], range(options.first, options.first + options.count), end, options.work)
    from tests.fuzz_readers.readers import READERS

    names = options.readers or list(READERS)
    print(f"{'reader':18} {'inputs':>7} {'faults':>7} {'slowest':>9} {'peak':>9} {'time':>7}  exit codes")
    left = list(names)

    def watched(name: str) -> Found:
        share = (end - time.time()) * min(1.0, options.jobs / len(left))  # what one leaves goes to those after it
        left.remove(name)
        return _watched(name, options.first, options.count, time.time() + share)

    with ThreadPoolExecutor(options.jobs) as pool:
        found = dict(zip(names, pool.map(watched, names), strict=True))
    faults = sum(len(one.faults) for one in found.values())
    short = [name for name, one in found.items() if one.read < options.count]
    print(f"{faults} faults" + (f"; fewer inputs than asked for: {', '.join(short)}" if short else ""))
    return 1 if faults or short else 0


def _watched(name: str, first: int, count: int, end: float) -> Found:
    """The inputs of one reader, in as many processes as it takes."""
    total, following, started = Found(), first, time.time()
    with tempfile.TemporaryDirectory() as scratch:
        while following < first + count and time.time() < end:
            work = Path(scratch) / str(following)
            work.mkdir()
            command = [sys.executable, "-m", "tests.fuzz_readers", name, "--first", str(following), "--work", str(work)]
            command += ["--count", str(first + count - following), "--minutes", str((end - time.time()) / 60)]
            process = subprocess.run(command, capture_output=True, text=True, check=False)
            total = total.with_more(json.loads((work / "found.json").read_text()))
            if process.returncode == 0:
                break
            if process.returncode == _BROKEN:  # a fault of this program
                raise RuntimeError(process.stderr)
            following = int((work / "number").read_text())
            said = " ".join(process.stderr.split())[-400:]
            total.faults[following] = f"the process ended with {process.returncode}: {said}"
            following += 1
    ends = " ".join(f"{code}:{n}" for code, n in sorted(total.ends.items()))
    print(
        f"{name:18} {total.read:7} {len(total.faults):7} {total.slowest_s:7.2f} s {total.peak_bytes / 1e6:6.0f} MB "
        f"{time.time() - started:5.0f} s  {ends}",
        flush=True,
    )
    for number, what in list(total.faults.items())[:8]:
        print(f"    {name} {number}: {what}", flush=True)
    return total


def _work(name: str, numbers: range, end: float, folder: Path) -> int:
    """Read inputs, and keep what was found before each of them: this process may die of any."""
    import torch

    torch.set_num_threads(1)
    found, inside = Found(), folder / "in"
    inside.mkdir()

    def begin(number: int) -> bool:
        (folder / "number").write_text(str(number))
        (folder / "found.json").write_text(json.dumps(vars(found)))
        faulthandler.dump_traceback_later(_HANGING_S, exit=True)
        return time.time() < end

    begin(numbers.start)
    faulthandler.cancel_dump_traceback_later()  # the whole inputs, which come first, load everything
    fuzz(name, numbers, inside, found, begin)
    faulthandler.cancel_dump_traceback_later()
    (folder / "found.json").write_text(json.dumps(vars(found)))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:  # noqa: BLE001 - told by a code of its own: readers end processes in other ways
        traceback.print_exc()
        sys.exit(_BROKEN)
