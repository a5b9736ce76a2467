"""Lets torchvision's Python code import beside a build of torch that its compiled operators don't fit.

Its networks are Python only; what it looks up when it is imported are operators such as ``nms``. Import this first.
"""

from importlib.util import find_spec
from pathlib import Path

import torch


def _compiled_operators_load() -> bool:
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    try:
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))
    except OSError:
        return False
    return True


if not _compiled_operators_load():
    _LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
    for _operator in ("nms", "qnms"):
        _LIBRARY.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
