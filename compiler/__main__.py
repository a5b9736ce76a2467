"""``python -m prunec.compiler``: the same as ``prunec``."""

import sys

from prunec.compiler.cli.main import run

if __name__ == "__main__":
    sys.exit(run())
