"""What one of several processes does in test_distributed.py: train and, as rank 0, write what came of it.

Arguments: data folder, output file, JSON of options, seed and names of toy hooks, 1 or 0 for batch norms, perhaps a
state file. With ``ask`` in the JSON, a rank and a number, that rank asks to stop when its metric is called so often.
"""

import json
import os
import signal
import sys
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from prunec.calibration.config import DataConfig
from prunec.calibration.data import load_data
from prunec.compiler.machine.ranks import is_main
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.recovery.recover import Recover, StateOptions
from prunec.passes.frontend import capture
from prunec.passes.interruption import Stopped, ask_to_stop
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify
from prunec.runtime.evaluate import top1
from tests.recovery import toy_hooks
from tests.recovery.networks import network, run


def asking(rank: int, call: int) -> Any:
    """The default metric, which asks to stop in one rank at a call."""
    calls = 0

    @wraps(top1)
    def metric(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == call and os.environ["RANK"] == str(rank):
            ask_to_stop(signal.SIGINT)
        return top1(outputs, labels)

    return metric


def main() -> None:
    folder, output, options, norm, *state = sys.argv[1:]
    torch.set_num_threads(1)
    config = DataConfig("npz:quarters.npz", "npz:quarters.npz", (0.3,), (0.2,), augment=("shift:1",))
    data = load_data(config, Path(folder), 0)
    program = capture(network(dropout=0.0, norm=norm == "1"), (torch.zeros(2, 1, 8, 8),))
    program = Sparsify().run(program).program
    others: dict[str, Any] = {"state": StateOptions(Path(state[0]), resume=True)} if state else {}
    given = json.loads(options)
    hooks = tuple(getattr(toy_hooks, name)() for name in given["hooks"]) or given["options"].pop("hooks", "")
    others["pruning"] = PruneFilters(ratio=0.5, criterion="learned", seed=0)
    if given["ask"]:
        others["metric"] = asking(*given["ask"])
    try:
        result = run(program, data, Recover(**given["options"], hooks=hooks), seed=given["seed"], **others)
    except Stopped as stopped:
        everywhere = Processes.join().gathered(int(stopped.number))
        if is_main():
            torch.save({"stopped": everywhere}, output)
        return
    trained = [parameter for hook in toy_hooks.Toy.started for parameter in hook.trained()]
    everywhere = Processes.join().gathered([parameter.detach() for parameter in trained])
    assert all(torch.equal(a, b) for a, b in zip(everywhere[0], everywhere[-1], strict=True)), "processes disagree"
    assert all(bool((result.program.parameters()[name][~mask] == 0).all()) for name, mask in program.masks.items())
    if is_main():
        torch.save(
            {
                "tensors": dict(result.program.tensors()),
                "losses": [record.train_loss for record in result.curve],
                "trained": everywhere[0],
                "test": [record.test for record in result.curve],
                "processes": result.processes,
            },
            output,
        )
