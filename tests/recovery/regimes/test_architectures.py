"""Every regime on a MobileNetV2 and a small vision transformer, with 64 random labelled samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.compiler.recovery.hooks import load_hooks
from prunec.passes.errors import UsageError
from prunec.passes.frontend import capture
from prunec.passes.oracle import check_oracle
from tests.architectures.small import SMALL
from tests.recovery.regimes.regime_runs import LAST, REGIMES, pruned, trained

pytestmark = pytest.mark.long
#: Regimes that aren't defined on a network, and what is said of it.
REFUSED = {
    ("MobileNetV2", "resrep"): "resrep can prune 3 of 25 groups, and these alone can't keep the goal",
    ("ViT", "network-slimming{penalty=0.01}"): "by the scale of the batch norm behind them, and the groups .* none",
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder, rng = tmp_path_factory.mktemp("samples"), np.random.default_rng(0)
    images = {f"{part}_images": rng.integers(0, 256, (64, 3, 32, 32), dtype=np.uint8) for part in ("train", "test")}
    labels = {f"{part}_labels": rng.integers(0, 10, 64) for part in ("train", "test")}
    np.savez(folder / "samples.npz", **images, **labels)
    config = DataConfig("npz:samples.npz", "npz:samples.npz", (0.5, 0.5, 0.5), (0.3, 0.3, 0.3))
    return load_data(config, folder, 0)


@pytest.mark.parametrize("hook", REGIMES)
@pytest.mark.parametrize("name", SMALL)
def test_filters_go_exactly_behind_every_regime(name: str, hook: str, samples: Data) -> None:
    torch.manual_seed(0)
    program, pruning = capture(SMALL[name]().eval(), (torch.randn(2, 3, 32, 32),)), REGIMES[hook]
    options = replace(LAST, epochs=1, batch_size=16)
    if words := REFUSED.get((name, hook)):
        with pytest.raises(UsageError, match=words):
            trained(program, samples, load_hooks(hook)[0], pruning, options)
        return
    result = trained(program, samples, load_hooks(hook)[0], pruning, options)
    behind = pruned(result, pruning)
    assert program.macs() / behind.program.macs() > 1.9
    assert check_oracle(result.program, behind, result.program.example_args).passed
