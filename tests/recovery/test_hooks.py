"""What training hooks can do, each shown by a toy of its kind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from prunec.calibration.data import Data
from prunec.calibration.splits import SampleSplit
from prunec.compiler.recovery.recover import EpochRecord, StateOptions
from prunec.compiler.recovery.running_hook import HookCost, Moment
from prunec.passes.errors import InputError, UsageError
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.sparsify import Sparsify
from prunec.passes.unknown import Unknown, reason_of
from tests.recovery import toy_hooks as toys
from tests.recovery.networks import OPTIONS, network, run, same, state

#: One step on all training data, which formulas can follow.
ONE_STEP = replace(
    OPTIONS, epochs=1, batch_size=540, schedule="constant:0.1", momentum=0.0, weight_decay=0.0, keep="last"
)


def plain() -> Program:
    """A network without dropout."""
    return capture(network(dropout=0.0), (torch.zeros(2, 1, 8, 8),))


def with_hooks(options: Any, *hooks: toys.Toy) -> Any:
    toys.Toy.started.clear()
    return replace(options, hooks=hooks)


def test_a_gradient_penalty_changes_the_step_by_its_own_gradient(data: Data) -> None:
    module = network(dropout=0.0)
    result = run(plain(), data, with_hooks(ONE_STEP, toys.GradientPenalty(weight=3.0)))
    inputs, labels = next(data.train.batches(540, epoch=0, seed=0))
    inputs.requires_grad_()
    loss = cross_entropy(module(inputs), labels)
    (gradient,) = torch.autograd.grad(loss, inputs, create_graph=True)
    (loss + 3.0 * gradient.square().sum()).backward()  # type: ignore[no-untyped-call]
    after = result.program.parameters()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(after[name], parameter - 0.1 * parameter.grad, rtol=1e-4, atol=1e-6)
    assert not same(state(result.program), state(run(plain(), data, ONE_STEP).program))
    assert result.hooks[0].macs == 3 * 540 * plain().macs()


def test_a_proximal_step_is_soft_thresholding_at_the_step_s_rate(data: Data) -> None:
    sparse = Sparsify().run(plain()).program
    result = run(sparse, data, with_hooks(ONE_STEP, toys.Proximal(strength=0.5)))
    free = run(sparse, data, ONE_STEP).program.parameters()
    groups = toys.Toy.started[0].training.coupling.groups
    assert {group.name for group in groups} == {"0", "3"}
    for name, parameter in result.program.parameters().items():
        expected = free[name]
        if name in ("0.weight", "3.weight"):
            expected = expected.sign() * (expected.abs() - 0.1 * 0.5).clamp(min=0)
        torch.testing.assert_close(parameter, expected)
    zeros = {group: int((result.program.parameters()[f"{group}.weight"] == 0).sum()) for group in ("0", "3")}
    assert result.hooks[0].decided == {"zeros": zeros}
    assert min(zeros.values()) > 0


@pytest.mark.parametrize("norm", [True, False])
def test_a_compactor_trains_and_is_merged_exactly(data: Data, norm: bool) -> None:
    program = capture(network(dropout=0.0, norm=norm), (torch.rand(6, 1, 8, 8),))
    differences = []

    @torch.no_grad()
    def compare(record: EpochRecord, detached: Program) -> None:
        compactor = toys.Toy.started[0]
        expected = compactor.outputs
        differences.append(
            float((detached(*compactor.form.example_args) - expected).abs().max() / expected.abs().max())
        )
        assert not torch.equal(compactor.compactor[:, :, 0, 0], torch.eye(8))

    options = with_hooks(replace(OPTIONS, keep="last"), toys.Compactor(learning_rate_factor=0.5))
    result = run(program, data, options, progress=compare)
    assert len(differences) == 3
    assert max(differences) < 1e-6
    assert str(result.program.graph) == str(program.graph)
    assert {n: t.shape for n, t in result.program.tensors().items()} == {
        n: t.shape for n, t in program.tensors().items()
    }
    assert result.hooks[0].figures == {"rank": 8}
    assert result.curve[-1].test > 0.8


def test_a_compactor_has_settings_of_its_own(data: Data) -> None:
    run(plain(), data, with_hooks(ONE_STEP, toys.Compactor(learning_rate_factor=0.0)))
    assert torch.equal(toys.Toy.started[0].compactor[:, :, 0, 0], torch.eye(8))
    run(plain(), data, with_hooks(ONE_STEP, toys.Compactor(learning_rate_factor=1.0)))
    first = toys.Toy.started[0].compactor[:, :, 0, 0] - torch.eye(8)
    run(plain(), data, with_hooks(ONE_STEP, toys.Compactor(learning_rate_factor=2.0)))
    torch.testing.assert_close(
        toys.Toy.started[0].compactor[:, :, 0, 0] - torch.eye(8), 2 * first, rtol=1e-3, atol=1e-6
    )


def test_a_merge_into_masked_weights_is_refused(data: Data) -> None:
    sparse = Sparsify().run(plain()).program
    assert "3.weight" in sparse.masks
    no_norm = capture(network(dropout=0.0, norm=False), (torch.zeros(2, 1, 8, 8),))
    with pytest.raises(UsageError, match=r"compactor gave 3.weight in detach\(\) with values where its mask has none"):
        run(Sparsify().run(no_norm).program, data, with_hooks(OPTIONS, toys.Compactor(layer="3")))


def test_an_adversary_climbs_the_loss_that_the_network_descends(data: Data) -> None:
    still = replace(OPTIONS, schedule="constant:1e-9", weight_decay=0.0, keep="last")
    program = run(plain(), data, OPTIONS).program
    result = run(program, data, with_hooks(still, toys.Adversary()))
    losses = toys.Toy.started[0].losses
    assert (result.hooks[0].samples, result.hooks[0].macs) == (3 * 512, 3 * 3 * 512 * plain().macs())
    run(program, data, with_hooks(still, toys.Adversary(learning_rate=0.0)))
    idle = toys.Toy.started[0].losses
    assert losses[0] == idle[0]
    assert sum(losses[-16:]) > 1.5 * sum(idle[-16:]), "the network stands still, and only the adversary learns"
    run(program, data, with_hooks(still, toys.Adversary(), toys.Adversary(size=0.25)))
    for adversary in toys.Toy.started:
        assert not torch.allclose(adversary.network.weight, adversary.initial, atol=1e-2), "both of two learn"
    trained = run(plain(), data, with_hooks(replace(OPTIONS, epochs=6), toys.Adversary()))
    assert trained.curve[-1].train_loss < trained.curve[0].train_loss
    assert trained.curve[-1].test > 0.8


def test_fake_quantization_leaves_its_ranges_and_no_trace(data: Data) -> None:
    seen: list[dict[str, Tensor]] = []

    def watch(record: EpochRecord, detached: Program) -> None:
        quantizers = toys.Toy.started[0].quantizers
        seen.append({name: quantizer.range.clone() for name, quantizer in quantizers.items()})

    program = plain()
    result = run(program, data, with_hooks(OPTIONS, toys.FakeQuantization()), progress=watch)
    decided: Any = result.hooks[0].decided["ranges"]
    assert decided.keys() == {"relu", "relu_1"}
    assert same(decided, seen[result.best_epoch - 1]), "the ranges are those of the network that was kept"
    assert all(float(low) == 0.0 < float(high) for low, high in decided.values())
    assert str(result.program.graph) == str(program.graph)
    assert not [node for node in result.program.graph.nodes if node.op == "call_module"]
    assert not same(state(result.program), state(run(program, data, OPTIONS).program)), "it was trained with rounding"
    assert result.curve[-1].test > 0.8


def test_inner_values_are_those_of_the_modules_and_nodes(data: Data) -> None:
    program, teacher = plain(), run(plain(), data, OPTIONS).program
    result = run(program, data, with_hooks(ONE_STEP, toys.Imitation()), teacher=teacher)
    batch = toys.Toy.started[0].batch
    assert batch.inner.keys() == batch.teacher_inner.keys() == {"2", "conv2d_1"}
    module = network(dropout=0.0).train()
    torch.testing.assert_close(batch.inner["2"], module[:3](batch.inputs))  # type: ignore[index]
    torch.testing.assert_close(batch.inner["conv2d_1"], module[:4](batch.inputs))  # type: ignore[index]
    torch.testing.assert_close(batch.teacher_outputs, teacher(batch.inputs))
    torch.testing.assert_close(batch.network(batch.inputs)[0].shape, batch.outputs.shape)
    assert result.spent.teacher_macs == teacher.macs()
    far, near = (
        run(program, data, with_hooks(replace(OPTIONS, epochs=n), toys.Imitation()), teacher=teacher)
        .curve[-1]
        .train_loss
        for n in (1, 6)
    )
    assert near < 0.5 * far, "the loss was replaced by the distance"


def test_calls_come_in_their_order_and_tell_the_time(data: Data) -> None:
    options = with_hooks(replace(OPTIONS, schedule="cosine:0.05", accumulate=2), toys.Film())
    run(plain(), data, options)
    film = toys.Toy.started[0]
    step = ["loss", "loss", "before_update", "after_update"]
    epoch = [*(16 * step), "end_epoch", "decided"]
    checked = [*epoch, "decided"]  # all that a hook is asked for is asked for once after the first epoch
    assert film.calls == ["attach", *checked, *epoch, *epoch][: len(film.calls)]
    assert [(moment.epoch, moment.step) for moment in film.moments] == [(e, s) for e in (1, 2, 3) for s in range(16)]
    schedule = film.training.schedule
    assert [m.learning_rate for m in film.moments] == [schedule.learning_rate(n / 16) for n in range(48)]
    assert film.training.steps_per_epoch == 16


def test_gradients_before_the_update_are_those_of_the_loss(data: Data) -> None:
    """Unscaled under fp16, and before clipping."""
    options = replace(ONE_STEP, clip_norm=1e-3)
    run(plain(), data, with_hooks(options, toys.Film(), toys.Film(factor=2.0)))
    first, second = toys.Toy.started
    assert same(first.gradients[0], second.gradients[0]), "both see the gradients of the loss after all hooks"
    run(plain(), data, with_hooks(replace(options, precision="fp16"), toys.Film(factor=2.0)))
    for name, gradient in toys.Toy.started[0].gradients[0].items():
        torch.testing.assert_close(gradient, first.gradients[0][name], rtol=0.05, atol=0.01)


def test_a_hook_ends_the_training(program: Program, data: Data, tmp_path: Path) -> None:
    options = with_hooks(replace(OPTIONS, epochs=5, keep="last", schedule="step:0=0.05,4=0.005"), toys.Film(last=2))
    file = StateOptions(tmp_path / "state.pt", resume=True)
    result = run(program, data, options, state=file)
    assert len(result.curve) == result.best_epoch == 2
    assert result.early_end is not None
    assert (result.early_end.hook, result.early_end.epoch, result.early_end.reason) == ("film", 2, "it has seen enough")
    assert result.spent.steps == 2 * 16
    assert "ended after epoch 2" in reason_of(result.trainability_accuracy)
    assert same(state(result.program), state(run(program, data, replace(OPTIONS, epochs=2, keep="last")).program))
    again = run(program, data, options, state=file)
    assert again.early_end == result.early_end, "an ended training has nothing left to do"
    assert same(state(again.program), state(result.program))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("keep", ["best", "last"])
def test_stateful_hooks_resume_to_the_bit(program: Program, data: Data, tmp_path: Path, keep: Any) -> None:
    hooks = (toys.Compactor(), toys.Adversary(), toys.FakeQuantization(), toys.Film())
    options = with_hooks(replace(OPTIONS, epochs=4, schedule="cosine:0.05", keep=keep), *hooks)
    whole = run(program, data, options)

    def stop(record: EpochRecord, _: Program) -> None:
        if record.epoch == 2:
            raise Stopped

    file = StateOptions(tmp_path / "state.pt", resume=True, every_steps=5)
    with pytest.raises(Stopped):
        run(program, data, options, state=file, progress=stop)
    resumed = run(program, data, options, state=file)
    assert resumed.resumed
    assert same(state(whole.program), state(resumed.program))
    assert [r.train_loss for r in whole.curve] == [r.train_loss for r in resumed.curve]
    for before, after in zip(whole.hooks, resumed.hooks, strict=True):
        torch.testing.assert_close(dict(before.decided), dict(after.decided), rtol=0, atol=0)
        assert (before.samples, before.text) == (after.samples, after.text)


@pytest.mark.parametrize(
    ("hooks", "words"),
    [
        ((), r"hooks was \S+:Adversary\{size=0.25\} \S+:Film and is none"),
        (
            (toys.Adversary(size=0.75), toys.Film()),
            r"hooks was \S+:Adversary\{size=0.25\} \S+:Film and is \S+:Adversary\{size=0.75\}",
        ),
        ((toys.Film(), toys.Adversary(size=0.25)), r"hooks was .* and is \S+:Film \S+:Adversary\{size=0.25\}"),
    ],
)
def test_a_state_of_other_hooks_is_refused(
    program: Program, data: Data, tmp_path: Path, hooks: Any, words: str
) -> None:
    file = StateOptions(tmp_path / "state.pt", resume=True)
    run(program, data, with_hooks(replace(OPTIONS, epochs=1), toys.Adversary(size=0.25), toys.Film()), state=file)
    with pytest.raises(InputError, match=words):
        run(program, data, with_hooks(replace(OPTIONS, epochs=1), *hooks), state=file)


def images(batches: Any) -> set[bytes]:
    return {image.numpy().tobytes() for inputs, _ in batches for image in inputs}


def test_held_out_data_are_of_the_training_data_and_not_trained_on(program: Program, data: Data) -> None:
    assert isinstance(data.train, SampleSplit)
    still = replace(data, train=replace(data.train, augmentations=()))
    options = with_hooks(OPTIONS, toys.HeldOut(0.25), toys.Film(), toys.HeldOut(0.125))
    result = run(program, still, options)
    first, film, second = toys.Toy.started
    assert film.training.held_out is None
    parts = [images(hook.held_out.batches(100)) for hook in (first, second)]
    assert (
        [len(part) for part in parts]
        == [fact.held_out_samples for fact in result.hooks if fact.name != "film"]
        == [135, 68]
    )
    trained_on = images((batch, None) for batch in first.trained_on)
    everything = images(still.train.batches(100))
    assert not parts[0] & parts[1]
    assert (parts[0] | parts[1]) <= everything
    assert trained_on <= everything - parts[0] - parts[1]
    for other in (still.validation, still.test):
        assert not (parts[0] | parts[1]) & images(other.batches(100))
    assert result.spent.steps == 3 * ((540 - 135 - 68) // 32)
    assert result.spent.samples == result.spent.steps * 32
    run(program, still, options)
    assert images(toys.Toy.started[3].held_out.batches(100)) == parts[0], "the choice follows the seed"
    run(program, still, options, seed=1)
    assert images(toys.Toy.started[6].held_out.batches(100)) != parts[0]


def test_more_than_the_training_data_can_t_be_held_out(program: Program, data: Data) -> None:
    with pytest.raises(UsageError, match="some data must be left to train on"):
        run(program, data, with_hooks(OPTIONS, toys.HeldOut(0.6), toys.HeldOut(0.5)))


@pytest.mark.parametrize("fraction", [1.0, -0.1, float("nan"), "half", None])
def test_a_share_is_refused_with_the_recipe(fraction: Any) -> None:
    with pytest.raises(UsageError, match="of the training data: expected a number of at least 0 and below 1"):
        with_hooks(OPTIONS, toys.HeldOut(fraction))


def test_impossible_wishes_are_refused(program: Program, data: Data) -> None:
    with pytest.raises(UsageError, match="imitation needs the dense network as its teacher"):
        run(program, data, with_hooks(OPTIONS, toys.Imitation()))
    with pytest.raises(UsageError, match=r"neither a module nor a node 'conv2d_9'\.\nDid you mean 'conv2d_1'"):
        run(program, data, with_hooks(OPTIONS, toys.Imitation(("conv2d_9",))), teacher=program)
    with pytest.raises(UsageError, match="ema averages the network's own tensors, and there is parameter 1 of the"):
        run(program, data, with_hooks(replace(OPTIONS, ema=0.9), toys.Adversary()))


class Failing(toys.RunningFilm):
    def after_update(self, moment: Moment) -> None:
        raise KeyError("no such thing")


def test_an_error_in_a_hook_names_it(program: Program, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys.Film, "running", Failing)
    with pytest.raises(UsageError, match=r"training hook 'film' of your code failed: KeyError: 'no such thing'"):
        run(program, data, with_hooks(OPTIONS, toys.Film()))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"0.weight": torch.zeros(3)},
            r"film gave 0.weight of shape \(3,\) in detach\(\); expected shape \(8, 1, 3, 3\)",
        ),
        ({"other": torch.zeros(3)}, r"film gave other of shape \(3,\) in detach\(\); expected a tensor of the network"),
    ],
)
def test_what_is_detached_must_be_of_the_network_s_form(
    program: Program, data: Data, monkeypatch: pytest.MonkeyPatch, values: Any, words: str
) -> None:
    monkeypatch.setattr(toys.RunningFilm, "detach", lambda self, program: values, raising=False)
    with pytest.raises(UsageError, match=words):
        run(program, data, with_hooks(OPTIONS, toys.Film()))


@pytest.mark.parametrize(
    ("method", "answer", "words"),
    [
        ("attach", None, "film gave None in "),
        ("figures", None, "film gave None in "),
        ("cost", None, r"film gave None in cost\(\); expected HookCost"),
        ("cost", HookCost(samples=None), r"film gave None in cost\(\); expected int"),  # type: ignore[arg-type]
        ("decided", [1], r"film gave \[1\] in "),
        ("decided", {"moment": Moment(1, 0, 0.1)}, "film gave a value of type Moment in .* plain values and tensors"),
        ("state", None, "film gave None in "),
        ("state", {"a": np.ones(3)}, "film gave a value of type ndarray in "),
        ("detach", None, r"film gave None in detach\(\); expected Mapping"),
        ("detach", {"0.weight": np.zeros((8, 1, 3, 3))}, "film gave 0.weight as ndarray in detach"),
        ("detach", {"0.weight": torch.full((8, 1, 3, 3), torch.nan)}, "film gave 0.weight with NaN in detach"),
        ("end_epoch", True, r"film gave True in end_epoch\(\); expected str"),
    ],
)
def test_what_is_no_answer_is_refused_after_one_epoch(
    program: Program, data: Data, monkeypatch: pytest.MonkeyPatch, method: str, answer: Any, words: str
) -> None:
    monkeypatch.setattr(toys.RunningFilm, method, lambda self, *_: answer, raising=False)
    with pytest.raises(UsageError, match=words):
        run(program, data, with_hooks(replace(OPTIONS, keep="last"), toys.Film()))
    assert all(moment.epoch == 1 for film in toys.Toy.started for moment in film.moments)


def test_what_is_no_running_hook_is_refused(program: Program, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys.Toy, "start", lambda self, training: None)
    with pytest.raises(UsageError, match=r"film gave None in start\(\); expected RunningHook"):
        run(program, data, with_hooks(OPTIONS, toys.Film()))


def test_figures_that_json_has_no_form_for_are_unknown(
    program: Program, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    watts = Unknown("there is no meter.")
    given = {"rank": np.int64(8), "loss": torch.tensor(0.5), "nan": float("nan"), "t": torch.zeros(2), "watts": watts}
    monkeypatch.setattr(toys.RunningFilm, "figures", lambda self: given, raising=False)
    figures = run(program, data, with_hooks(replace(OPTIONS, epochs=1), toys.Film())).hooks[0].figures
    assert (figures["rank"], figures["loss"], figures["watts"]) == (8, 0.5, watts)
    assert type(figures["rank"]) is int
    assert reason_of(figures["nan"]) == "the figure is nan, which JSON has no form for."
    assert reason_of(figures["t"]) == "the figure is of type Tensor, which JSON has no form for."
