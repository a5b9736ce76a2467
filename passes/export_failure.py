"""The error that says why torch.export can't capture a network: the operator, the line of code, what to try."""

import re
from traceback import walk_tb

from prunec.passes.errors import UnsupportedModelError, first_line
from prunec.passes.user_lines import line_of_error

#: The name of a size or number that torch.export doesn't know before the network runs.
_UNKNOWN = re.compile(r"\bz?uf?\d+\b")
#: What torch.export says of an output, or of an input, of a class that it can't look into.
_UNKNOWN_CLASS = re.compile(r"Found <class '([^']+)'> in (output|input)")


def export_failure(name: str, error: BaseException) -> UnsupportedModelError:
    """The error to raise instead of one that torch.export raised on a network of the class ``name``."""
    if unknown := _UNKNOWN_CLASS.search(first_line(error)):
        return UnsupportedModelError(
            f"torch.export can't capture {name}: there is a {unknown[1]} in its {unknown[2]}s, and nothing tells which "
            "tensors that holds.",
            hint="Take and give tensors, numbers, tuples, lists, dicts, named tuples or dataclasses. Switch off what "
            "is given out for the next call, such as a cache of keys and values: use_cache = False.",
        )
    operator, line = _operator(error), line_of_error(error)
    where = "; ".join(part for part in (operator and f"at {operator}", line and line[0]) if part)
    what = first_line(error).partition(" (unhinted")[0]
    return UnsupportedModelError(
        f"torch.export can't capture {name}{f', {where}' if where else ''}: {what}",
        hint="Control flow and shapes that depend on a tensor's values can't be captured: write torch.where or a mask "
        "instead of the branch, or compile the part before it. Of a detector that is backbone and head, without the "
        "post-processing that picks boxes.",
    )


def _operator(error: BaseException) -> str | None:
    """The operator that yields the unknown number, or the method of Tensor that failed."""
    if unknown := _UNKNOWN.search(first_line(error)):
        traced = str(getattr(error, "partial_fx_graph", ""))
        made = re.search(rf'"[^"]*\b{unknown[0]}\b[^"]*" = torch\.ops\.(\w+\.\w+)', traced)
        return made[1] if made else None
    for frame, _ in reversed(list(walk_tb(error.__traceback__))):
        method = frame.f_locals.get("func")
        name = getattr(method, "__name__", None)
        if frame.f_code.co_name == "__torch_function__" and name:
            return f"Tensor.{name}"
    return None
