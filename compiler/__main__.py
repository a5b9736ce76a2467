"""``python -m prunec.compiler``: the same as ``prunec``."""

from prunec.compiler.cli.main import main

if __name__ == "__main__":
    main()
