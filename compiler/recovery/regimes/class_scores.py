"""The number of classes of a network that gives one score for each."""

import torch

from prunec.passes.errors import UsageError
from prunec.passes.outputs import only_tensor
from prunec.passes.program import Program


@torch.no_grad()
def class_count(program: Program, hook: str) -> int:
    """The number of classes of a classifier.

    Raises:
        UsageError: The network has other outputs than one of shape (samples, classes).
    """
    scores = only_tensor(program.inference()(*program.example_args, **program.example_kwargs))
    if scores is None or scores.ndim != 2:
        raise UsageError(
            f"recover: the training hook {hook} needs a network with one output of shape (samples, classes).",
            hint="Take another hook, or deploy one output: [model] outputs in prunec.toml.",
        )
    return scores.shape[1]
