"""Libraries that print what their errors say anyway, kept quiet."""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def without_tracebacks(logger_name: str) -> Iterator[None]:
    """Silence a logger that prints the traceback of an error besides raising it."""
    logger = logging.getLogger(logger_name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def only_without_error() -> Iterator[None]:
    """Show what is printed on standard error only where no error is raised, which says where it happened itself."""
    said = io.StringIO()
    with redirect_stderr(said):
        yield
    sys.stderr.write(said.getvalue())
