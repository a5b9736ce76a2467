"""Functions that a project file names as ``module:callable``."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from prunec.passes.errors import UsageError, did_you_mean


def import_callable(reference: str, folder: Path) -> Callable[..., Any]:
    """The function or class that ``module:callable`` names.

    A module file in ``folder`` comes first, then whatever is installed. While the module is loaded, the folder is on
    the import path, so that it finds its neighbours.

    Raises:
        UsageError: There is no such module, it fails while it is loaded, or it has no such callable.
    """
    module_name, _, name = reference.partition(":")
    module = _load(module_name, folder, reference)
    value = getattr(module, name, None)
    if not callable(value):
        known = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
        raise UsageError(
            f"{reference!r}: {module.__file__ or module_name} has no callable {name!r}.", hint=did_you_mean(name, known)
        )
    return value  # type: ignore[no-any-return]


def _load(name: str, folder: Path, reference: str) -> ModuleType:
    path, entry = folder.joinpath(*name.split(".")).with_suffix(".py").resolve(), str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        return _load_file(path) if path.is_file() else importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == name.split(".", maxsplit=1)[0]
        what = f"no module {name!r} in {folder}" if missing else f"{type(error).__name__}: {error}"
        raise UsageError(
            f"{reference!r} can't be loaded: {what}.",
            hint=f"Modules are looked for in {folder}, then among the installed packages.",
        ) from error
    finally:
        sys.path.remove(entry)


def _load_file(path: Path) -> ModuleType:
    # A name of its own per file: the "model.py" of two projects in one process must not be mixed up.
    unique = f"prunec_user_code.{path.with_suffix('').as_posix().replace('/', '_').replace('.', '_')}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module
