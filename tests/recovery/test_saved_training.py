"""States of trainings: what is damaged, of another prunec, or doesn't fit is refused before it trains on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prunec.calibration.data import Data
from prunec.compiler.recovery import recover as recover_module
from prunec.compiler.recovery.recover import Recover, StateOptions, recover
from prunec.passes.errors import InputError
from prunec.passes.program import Program

OPTIONS = Recover(epochs=2, schedule="constant:0.01", batch_size=32, probe=0, ema=0.5)


@pytest.fixture
def path(program: Program, data: Data, tmp_path: Path) -> Path:
    recover(program, OPTIONS, data, state=StateOptions(tmp_path / "x.state"))
    return tmp_path / "x.state"


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    held = torch.load(path, weights_only=True)
    how(held["state"])
    torch.save(held, path)


@pytest.mark.parametrize(
    "how",
    [
        lambda s: s.pop("step"),
        lambda s: s.update(further=1),
        lambda s: s.update(step=-1),
        lambda s: s.update(step=5),
        lambda s: s.update(seconds=float("nan")),
        lambda s: s.update(curve=s["curve"] * 2),
        lambda s: s.update(best_epoch=7),
        lambda s: s["curve"][0].pop("test"),
        lambda s: s.update(average=None),
        lambda s: s.update(random=[]),
        lambda s: s.update(random=[["x"]]),
        lambda s: s["tensors"].popitem(),
        lambda s: s["tensors"].update({next(iter(s["tensors"])): torch.zeros(1)}),
        lambda s: next(iter(s["tensors"].values())).fill_(float("inf")),
        lambda s: s["optimizer"]["param_groups"][0].update(lr="fast"),
        lambda s: s["optimizer"]["param_groups"].clear(),
        lambda s: s["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(3)),
        lambda s: s.update(hooks=[{}]),
    ],
)
def test_fields_that_can_t_be_are_refused(path: Path, program: Program, data: Data, how: Any) -> None:
    change(path, how)
    with pytest.raises(InputError, match=r"x\.state can't be read as the state of a training"):
        recover(program, OPTIONS, data, state=StateOptions(path, resume=True))


def test_a_flipped_byte_in_the_weights_is_seen(path: Path, program: Program, data: Data) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="can't be read as the state of a training"):
        recover(program, OPTIONS, data, state=StateOptions(path, resume=True))


def test_a_state_of_another_prunec_is_refused(
    path: Path, program: Program, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recover(program, OPTIONS, data, state=StateOptions(path, resume=True)).resumed
    monkeypatch.setattr(recover_module, "tool_version", lambda tool: "99.0")
    with pytest.raises(InputError, match=r"prunec was .* and is 99\.0"):
        recover(program, OPTIONS, data, state=StateOptions(path, resume=True))
