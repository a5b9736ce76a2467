"""What each of several processes does in test_regimes.py: train with every regime.

Arguments: data folder, output file.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from prunec.calibration.config import DataConfig
from prunec.calibration.data import load_data
from prunec.compiler.machine.ranks import is_main
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.recovery.recover import DenseNetwork, recover
from tests.recovery.regimes.regime_runs import LAST, REGIMES
from tests.recovery.regimes.toys import plain


def main() -> None:
    folder, output = sys.argv[1:]
    torch.set_num_threads(1)
    config = DataConfig("npz:quarters.npz", "npz:quarters.npz", (0.3,), (0.2,), augment=("shift:1",))
    data = load_data(config, Path(folder), 0)
    decided: dict[str, Any] = {}
    for name, pruning in REGIMES.items():
        options = replace(LAST, epochs=2, hooks=name)
        (hook,) = recover(plain(), options, data, dense=DenseNetwork(plain(), pruning=pruning)).hooks
        units: Any = hook.decided["units"]
        told = {group: values.tolist() for group, values in units.items()}
        everywhere = Processes.join().gathered(told)
        assert all(each == everywhere[0] for each in everywhere), f"processes disagree on {name}"
        decided[name] = told
    if is_main():
        torch.save({"decided": decided, "processes": Processes.join().count}, output)
