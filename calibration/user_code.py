"""Functions that a project file names as ``module:callable``."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.user_calls import call_user_code


def import_callable(reference: str, folder: Path) -> Callable[..., Any]:
    """The function or class that ``module:callable`` names.

    A module file in ``folder`` comes first, then whatever is installed. While the module is loaded, the folder is on
    the import path, so that it finds its neighbours.

    Raises:
        InputError: The module fails while it is loaded.
        UsageError: There is no such module, or it has no such callable.
    """
    module_name, _, name = reference.partition(":")
    module = _load(module_name, folder, reference)
    value = call_user_code(f"module {module_name!r}", getattr, module, name, None)
    if not callable(value):
        known = [n for n, value in vars(module).items() if not n.startswith("_") and callable(value)]
        raise UsageError(
            f"{reference!r}: {module.__file__ or module_name} has no callable {name!r}.", hint=did_you_mean(name, known)
        )
    return value  # type: ignore[no-any-return]


def _load(name: str, folder: Path, reference: str) -> ModuleType:
    path, entry = folder.joinpath(*name.split(".")).with_suffix(".py").resolve(), str(folder.resolve())
    hint = f"Modules are looked for in {folder}, then among the installed packages."
    absent = f"{reference!r} can't be loaded: no module {name!r} in {folder}."
    load = partial(_load_file, path) if path.is_file() else partial(_import, name, absent, hint)
    sys.path.insert(0, entry)
    try:
        return call_user_code(f"module of {reference!r} can't be loaded: it", load)  # type: ignore[no-any-return]
    finally:
        if entry in sys.path:  # which the module may change, too
            sys.path.remove(entry)


def _import(name: str, absent: str, hint: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name.split(".", maxsplit=1)[0]:
            raise UsageError(absent, hint=hint) from error
        raise


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
