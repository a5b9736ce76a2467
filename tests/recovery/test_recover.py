from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from prunec.calibration.data import Data
from prunec.compiler.recovery import objective
from prunec.compiler.recovery.objective import Distillation, label_loss
from prunec.compiler.recovery.recover import EpochRecord, Recover
from prunec.passes.errors import InputError, TrainingDivergedError, UnsupportedModelError, UsageError
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.sparsify import Sparsify
from prunec.passes.two_four import is_two_four
from prunec.passes.unknown import reason_of
from tests.recovery.networks import OPTIONS, network, run, same, state


def test_the_network_learns_and_the_program_passed_in_stays(program: Program, data: Data) -> None:
    before = state(program)
    seen: list[EpochRecord] = []
    result = run(program, data, replace(OPTIONS, epochs=6), progress=lambda record, _: seen.append(record))
    assert same(before, state(program))
    assert not program.training
    assert not result.program.training
    assert tuple(seen) == result.curve
    assert [record.epoch for record in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].train_loss < seen[0].train_loss
    assert result.curve[result.best_epoch - 1].test > 0.8
    assert result.seconds >= sum(record.seconds for record in seen)


def test_running_statistics_are_trained(program: Program, data: Data) -> None:
    before, after = state(program), state(run(program, data, OPTIONS).program)
    assert not torch.equal(before["1.running_mean"], after["1.running_mean"])


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda o, y: {}[3], r"loss function failed at .*test_recover\.py:\d+: KeyError: 3"),
        (lambda o: o.sum(), r"loss function failed \(.*test_recover\.py:\d+\): TypeError"),
        (lambda o, y: cross_entropy(o.detach(), y), "without a gradient"),
        (lambda o, y: torch.tensor(3), "without a gradient"),
    ],
)
def test_losses_that_can_t_be_minimised_are_refused(program: Program, data: Data, loss: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(program, data, OPTIONS, loss=loss)


def test_masks_hold(program: Program, data: Data) -> None:
    sparse = Sparsify().run(program).program
    assert sparse.masks
    result = run(sparse, data, OPTIONS)
    parameters = result.program.parameters()
    for name, mask in sparse.masks.items():
        assert torch.equal(result.program.masks[name], mask)
        assert is_two_four(parameters[name])
        assert bool((parameters[name][~mask] == 0).all())
        assert not torch.equal(parameters[name], sparse.parameters()[name])


def test_a_seed_gives_one_result_whatever_happened_before(program: Program, data: Data) -> None:
    torch.manual_seed(11)
    first = run(program, data, OPTIONS, seed=3)
    drawn = torch.rand(1)
    again = run(program, data, OPTIONS, seed=3)
    assert same(state(first.program), state(again.program))
    assert [r.train_loss for r in first.curve] == [r.train_loss for r in again.curve]
    assert not same(state(first.program), state(run(program, data, OPTIONS, seed=4).program))
    # Nor does a run change the random numbers of its caller.
    torch.manual_seed(11)
    assert torch.equal(drawn, torch.rand(1))


class Scripted:
    """A metric that gives validation (60 samples) one score per epoch, the test data another, training a half."""

    def __init__(self, validation: list[float], test: list[float]) -> None:
        self.scores = {60: iter(validation), 200: iter(test)}

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return torch.full((len(labels),), 0.5 if len(labels) == 32 else next(self.scores[len(labels)]))


def test_best_is_chosen_on_validation_and_the_later_of_equals(program: Program, data: Data) -> None:
    options = replace(OPTIONS, epochs=4)
    scores = Scripted([0.25, 0.75, 0.75, 0.5], [1.0, 0.0, 0.25, 0.5])
    result = run(program, data, options, metric=scores)
    assert result.best_epoch == 3
    assert [record.validation for record in result.curve] == [0.25, 0.75, 0.75, 0.5]
    assert [record.test for record in result.curve] == [1.0, 0.0, 0.25, 0.5]
    # The schedule is constant, so that the third epoch is where a run of three epochs ends.
    shorter = run(program, data, replace(OPTIONS, epochs=3, keep="last"))
    assert same(state(result.program), state(shorter.program))
    assert shorter.best_epoch == 3


def test_last_keeps_the_last_epoch(program: Program, data: Data) -> None:
    scores = Scripted([0.75, 0.5, 0.25], [0.0, 0.0, 0.0])
    assert run(program, data, replace(OPTIONS, keep="last"), metric=scores).best_epoch == 3


def test_trainability_accuracy_is_the_mean_test_metric_of_the_first_stage(program: Program, data: Data) -> None:
    options = replace(OPTIONS, epochs=4, schedule="step:0=0.05,2=0.005")
    result = run(program, data, options, metric=Scripted([0.5] * 4, [0.25, 0.5, 1.0, 1.0]))
    assert result.trainability_accuracy == 0.375
    assert result.trainability_epochs == 2
    assert result.learning_rates == [[0, 0.05], [2, 0.005]]
    assert [record.learning_rate for record in result.curve] == [0.05, 0.05, 0.005, 0.005]


def test_a_cosine_schedule_has_no_trainability_accuracy(program: Program, data: Data) -> None:
    result = run(program, data, replace(OPTIONS, schedule="cosine:0.05"))
    assert "cosine:0.05 has no first stage" in reason_of(result.trainability_accuracy)
    assert result.trainability_epochs == result.trainability_accuracy
    assert len(result.learning_rates) == 3


def test_the_first_step_is_sgd_with_weight_decay(data: Data) -> None:
    """One epoch of one batch against the formula, with the loss's gradient from the module itself."""
    module = network(dropout=0.0)
    program = capture(module, (torch.zeros(2, 1, 8, 8),))
    options = Recover(epochs=1, schedule="constant:0.1", batch_size=540, weight_decay=0.01, keep="last")
    result = run(program, data, options)
    inputs, labels = next(data.train.batches(540, epoch=0, seed=0))
    module.train()
    cross_entropy(module(inputs), labels).backward()  # type: ignore[no-untyped-call]
    after = result.program.parameters()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        expected = parameter - 0.1 * (parameter.grad + 0.01 * parameter)
        torch.testing.assert_close(after[name], expected, rtol=1e-4, atol=1e-6)


def test_distillation_alone_teaches_without_labels(program: Program, data: Data) -> None:
    teacher = run(program, data, replace(OPTIONS, epochs=6)).program.train()
    before = state(teacher)

    def no_loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return 0 * outputs.sum()

    options = replace(OPTIONS, epochs=6, schedule="constant:0.01", distill=4.0)
    result = run(program, data, options, teacher=teacher, loss=no_loss, seed=1)
    assert result.curve[-1].test > 0.8
    assert result.curve[-1].train_loss < result.curve[0].train_loss
    # Trained or not, a teacher teaches in its inference form and isn't changed.
    assert same(before, state(teacher))
    assert teacher.training


def test_the_distillation_loss_is_the_scaled_divergence_mixed_with_the_loss(program: Program) -> None:
    inputs, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 0])
    outputs = torch.rand(5, 4, requires_grad=True)
    distillation = Distillation(temperature=3.0, weight=0.25)
    targets = (program(inputs) / 3).softmax(1).detach()
    divergence = (targets * (targets.log() - (outputs / 3).log_softmax(1))).sum(1).mean() * 9
    taught = program(inputs).detach()
    torch.testing.assert_close(distillation(outputs, taught), divergence)
    assert abs(distillation(program(inputs), taught).item()) < 1e-6
    expected = 0.75 * cross_entropy(outputs, labels) + 0.25 * divergence
    plain = label_loss(cross_entropy, outputs, labels)
    torch.testing.assert_close(plain, cross_entropy(outputs, labels))
    torch.testing.assert_close(distillation.mixed(plain, outputs, taught), expected)


def test_the_place_of_a_loss_is_looked_for_only_where_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    monkeypatch.setattr(objective, "defined_at", lambda code: looked.append(code) or " (mine.py:3)")
    outputs, labels = torch.rand(5, 4, requires_grad=True), torch.tensor([0, 1, 2, 3, 0])
    label_loss(cross_entropy, outputs, labels)
    assert not looked

    def each(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(outputs, labels, reduction="none")

    with pytest.raises(InputError, match=r"The loss function \(mine.py:3\) gave a tensor of shape \(5,\)"):
        label_loss(each, outputs, labels)
    assert looked == [each]


def test_a_diverging_run_says_where_and_what_to_try(program: Program, data: Data) -> None:
    with pytest.raises(TrainingDivergedError) as caught:
        run(program, data, replace(OPTIONS, schedule="step:0=1e-3,1=1e20"))
    assert caught.value.exit_code == 11
    for expected in ("epoch 2 of 3", "of 16", "1e+20", "Try a lower learning rate"):
        assert expected in str(caught.value)


def test_weights_that_explode_in_the_last_step_are_noticed(program: Program, data: Data) -> None:
    options = Recover(epochs=1, schedule="constant:1e38", batch_size=540, weight_decay=10.0)
    with pytest.raises(TrainingDivergedError, match=r"holds values that are not finite in epoch 1 of 1"):
        run(program, data, options)


def failing(outputs: Tensor, labels: Tensor) -> Any:
    return cross_entropy(outputs, labels, reduction="none")


@pytest.mark.parametrize(
    ("options", "others", "expected"),
    [
        (replace(OPTIONS, distill=4.0), {}, "needs the dense network as its teacher"),
        (OPTIONS, {"loss": failing}, r"tensor of shape \(32,\); expected a scalar"),
        (OPTIONS, {"loss": lambda outputs, labels: 1.0}, "gave float; expected a scalar"),
    ],
)
def test_unusable_losses_are_refused(
    program: Program, data: Data, options: Recover, others: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError if others else UsageError, match=expected):
        run(program, data, options, **others)


def test_networks_that_cannot_be_trained_are_unsupported(program: Program, data: Data) -> None:
    frozen = program.clone()
    for parameter in frozen.module.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(UnsupportedModelError, match="nothing can be trained"):
        run(frozen, data, OPTIONS)
    fixed = replace(program, dynamic_shapes=None)
    with pytest.raises(UnsupportedModelError, match="batch of 2 only"):
        run(fixed, data, OPTIONS)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"epochs": 0}, "epochs must be at least 1 and at most 100000, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"momentum": 1.0}, "momentum must be"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov must be false where momentum is 0"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"distill": -4.0}, "distill must be"),
        ({"distill_weight": 0.0}, "distill_weight must be above 0"),
        ({"distill_weight": 1.5}, "distill_weight must be above 0 and at most 1"),
        ({"distill_weight": 1.5}, "at most 1, got 1.5"),
        ({"keep": "bst"}, "Did you mean 'best'"),
        ({"schedule": "cosin:0.1"}, "Did you mean 'cosine'"),
        ({"schedule": "step:0=0.1,3=0.01"}, "3 epochs never reaches"),
    ],
)
def test_options_out_of_range_are_usage_errors(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        replace(OPTIONS, **change)
