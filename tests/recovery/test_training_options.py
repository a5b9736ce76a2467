"""Options of a training: smoothing, warm-up, clipping, averages, accumulation, precision, memory order."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from prunec.calibration.data import Data
from prunec.compiler.recovery.networks import synchronise_batchnorms
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.recovery.recover import EpochRecord, Recover
from prunec.compiler.recovery.tensors import WeightAverage
from prunec.compiler.recovery.training_start import full_schedule
from prunec.passes.errors import TrainingDivergedError, UsageError
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.sparsify import Sparsify
from tests.recovery.networks import OPTIONS, network, run, same, state


def plain() -> Program:
    """Without dropout and batch norm, whose results depend on how a batch is divided."""
    return capture(network(dropout=0.0, norm=False), (torch.zeros(2, 1, 8, 8),))


def difference(first: Program, second: Program) -> float:
    """Largest difference of a weight, relative to the largest weight."""
    pairs = [(a, state(second)[name]) for name, a in state(first).items()]
    return max(float((a - b).abs().max()) for a, b in pairs) / max(float(a.abs().max()) for a, _ in pairs)


def test_label_smoothing_is_cross_entropy_s_own(data: Data) -> None:
    smoothed = run(plain(), data, replace(OPTIONS, label_smoothing=0.2)).program

    def by_hand(outputs: Tensor, labels: Tensor) -> Tensor:
        spread = -torch.log_softmax(outputs, 1).mean()
        return 0.8 * cross_entropy(outputs, labels) + 0.2 * spread

    assert difference(smoothed, run(plain(), data, OPTIONS, loss=by_hand).program) < 1e-4
    assert difference(smoothed, run(plain(), data, OPTIONS).program) > 1e-2
    with pytest.raises(UsageError, match="loss of its own"):
        run(plain(), data, replace(OPTIONS, label_smoothing=0.2), loss=by_hand)


def test_warm_up_rises_linearly_to_the_schedule() -> None:
    schedule = full_schedule(Recover(epochs=10, schedule="cosine:0.4", warmup=2.0), None)
    cosine = full_schedule(Recover(epochs=10, schedule="cosine:0.4"), None)
    assert schedule.learning_rate(0) == 0
    assert schedule.learning_rate(1) == pytest.approx(cosine.learning_rate(1) / 2)
    assert [schedule.learning_rate(e) for e in (2, 3.5, 9)] == [cosine.learning_rate(e) for e in (2, 3.5, 9)]
    assert schedule.first_stage_epochs is None
    assert schedule.trace(10)[:2] == [[0, 0.0], [1, schedule.learning_rate(1)]]


def test_clipping_bounds_every_step(data: Data) -> None:
    options = Recover(epochs=1, schedule="constant:1.0", batch_size=32, momentum=0.0, weight_decay=0.0, clip_norm=1e-3)
    before = plain()
    after = run(before, data, options).program
    steps = 540 // 32
    pairs = zip(state(before).values(), state(after).values(), strict=True)
    moved = sum(float((a - b).square().sum()) for a, b in pairs)
    assert 0 < moved**0.5 <= steps * 1e-3 * 1.001


def test_accumulation_gives_the_same_weights(data: Data) -> None:
    whole, parts = (run(plain(), data, replace(OPTIONS, accumulate=n)).program for n in (1, 5))
    assert difference(whole, parts) < 1e-4
    assert not same(state(whole), state(parts)), "it isn't computed in parts"


def test_the_average_is_what_is_kept(data: Data) -> None:
    networks: list[dict[str, Tensor]] = []

    def keep(record: EpochRecord, trained: Program) -> None:
        networks.append(state(trained))

    options = replace(OPTIONS, ema=0.9, keep="last")
    result = run(plain(), data, options, progress=keep)
    assert same(networks[-1], state(result.program))
    assert not same(state(result.program), state(run(plain(), data, replace(OPTIONS, keep="last")).program))


def test_an_average_follows_its_recurrence() -> None:
    program = capture(nn.BatchNorm1d(3), (torch.zeros(2, 3),))
    average = WeightAverage(program, 0.5)
    expected, weight = torch.ones(3), program.parameters()["weight"]
    for step in range(12):
        with torch.no_grad():
            weight.fill_(float(step))
        average.update(program)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert torch.allclose(average.program.parameters()["weight"], expected)


def test_masks_hold_in_the_average(data: Data, program: Program) -> None:
    sparse = Sparsify().run(program).program
    result = run(sparse, data, replace(OPTIONS, ema=0.99))
    for name, mask in sparse.masks.items():
        assert bool((result.program.parameters()[name][~mask] == 0).all())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_learns_and_keeps_float32_weights(data: Data, program: Program, precision: str) -> None:
    result = run(program, data, replace(OPTIONS, epochs=6, precision=precision))
    assert {tensor.dtype for tensor in result.program.parameters().values()} == {torch.float32}
    assert result.curve[result.best_epoch - 1].test > 0.8
    assert not same(state(result.program), state(run(program, data, replace(OPTIONS, epochs=6)).program))


def test_channels_last_trains_alike_and_comes_back_in_plain_order(data: Data) -> None:
    plain_order, channels_last = (run(plain(), data, replace(OPTIONS, channels_last=c)).program for c in (False, True))
    assert difference(plain_order, channels_last) < 1e-4
    assert all(tensor.is_contiguous() for tensor in channels_last.tensors().values())


class Viewed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.head(self.conv(x).as_strided((x.shape[0], 512), (512, 1)))
        return features


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1"),
        ({"warmup": 3.0}, "warmup must be at least 0 and below the 3 epochs"),
        ({"clip_norm": -1.0}, "clip_norm must be"),
        ({"ema": 1.0}, "ema must be"),
        ({"accumulate": 17}, "accumulate must be"),
        ({"precision": "fp8"}, "precision = 'fp8' is unknown"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(OPTIONS, **options)  # type: ignore[arg-type]


def test_a_divergence_changes_no_weights(data: Data) -> None:
    networks = []

    def explode(outputs: Tensor, labels: Tensor) -> Tensor:
        loss = cross_entropy(outputs, labels)
        return loss if len(networks) < 1 else loss * torch.inf

    def keep(record: EpochRecord, trained: Program) -> None:
        networks.append(trained)
        networks.append(trained.clone())

    with pytest.raises(TrainingDivergedError, match=r"the loss is inf in epoch 2 of 3, step 1 of 16, at learning rate"):
        run(plain(), data, OPTIONS, loss=explode, progress=keep)
    assert same(state(networks[0]), state(networks[1]))


def test_synchronised_batch_norms_need_cuda(data: Data, program: Program) -> None:
    with pytest.raises(UsageError, match="sync_batchnorm needs CUDA"):
        run(program, data, replace(OPTIONS, sync_batchnorm=True))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_a_compiled_training_gives_the_same_network(data: Data) -> None:
    eager, compiled = (run(plain(), data, replace(OPTIONS, compile=c)).program for c in (False, True))
    assert difference(eager, compiled) < 1e-3


def test_synchronising_rewrites_the_batch_norms_that_train(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fake(inputs: Tensor, *others: object) -> Tensor:
        seen.append((len(inputs), *others[4:]))
        return inputs

    monkeypatch.setattr("prunec.compiler.recovery.networks.SyncBatchNorm.apply", fake)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 4)
    training = program.with_tensors(program.tensors()).train()
    before = training(torch.zeros(6, 1, 8, 8))
    synchronise_batchnorms(training, Processes(0, 4, torch.device("cuda")))
    after = training(torch.zeros(6, 1, 8, 8))
    assert after.shape == before.shape
    assert [(count, eps, momentum, size) for count, eps, momentum, _, size in seen] == [(6, 1e-5, 0.1, 4)]
