"""Installing plug-ins for one test: a folder of metadata on ``sys.path``, as pip leaves it behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prunec.passes.plugins import plug_ins


@contextmanager
def installed(folder: Path, group: str, **locations: str) -> Iterator[None]:
    """A package "plugged" that registers things, until the context is left.

    Args:
        folder: An empty folder.
        group: Entry point group.
        locations: Name -> ``module:attribute``.
    """
    metadata = folder / "plugged-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    lines = [f"[{group}]", *(f"{name} = {location}" for name, location in locations.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        plug_ins.cache_clear()
        try:
            yield
        finally:
            plug_ins.cache_clear()
