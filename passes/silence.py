"""Silence of torch, which logs a traceback for each failure that its caller handles."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_logging() -> Iterator[None]:
    """Let nothing be logged."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
