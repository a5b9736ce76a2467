"""The command line. Importing it imports neither torch nor anything else that is slow to load."""

from prunec.passes.lazy import lazy_attributes

__getattr__, __dir__ = lazy_attributes(__name__, {"app": "prunec.compiler.cli.main", "run": "prunec.compiler.cli.main"})
