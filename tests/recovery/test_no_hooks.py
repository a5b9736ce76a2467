"""What training is without hooks: one plain loop, to the bit, and the figures that it had before there were hooks."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from prunec.calibration.data import Data
from prunec.calibration.splits import SampleSplit
from prunec.passes.program import Program
from prunec.passes.sparsify import Sparsify
from tests.recovery.networks import OPTIONS, run, same, state

#: Loss on the training data and accuracy on the test data by epoch, as version 0.1.0 had them before there were hooks,
#: when the last tenth of the training data validated.
LOSSES = (1.305242, 0.557416, 0.221402)
ACCURACIES = (0.88, 0.96, 0.985)


def test_the_figures_are_those_of_before(program: Program, data: Data) -> None:
    assert isinstance(data.train, SampleSplit)
    assert isinstance(data.validation, SampleSplit)
    fitted, held_out = replace(data.train, positions=torch.arange(540)), torch.arange(540, 600)
    as_then = replace(data, train=fitted, validation=replace(data.validation, positions=held_out))
    result = run(program, as_then, OPTIONS)
    assert [record.train_loss for record in result.curve] == pytest.approx(LOSSES, rel=1e-4)
    assert [record.test for record in result.curve] == pytest.approx(ACCURACIES, abs=0.011)
    assert result.hooks == ()
    assert result.early_end is None


def test_it_is_a_plain_loop_to_the_bit(program: Program, data: Data) -> None:
    sparse = Sparsify().run(program).program
    trained = sparse.clone().train()
    optimizer = SGD(trained.module.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for epoch in range(OPTIONS.epochs):
            for inputs, labels in data.train.batches(OPTIONS.batch_size, epoch=epoch, seed=0):
                optimizer.zero_grad()
                cross_entropy(trained(inputs), labels).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                trained.apply_masks()
    result = run(sparse, data, replace(OPTIONS, keep="last"))
    assert same(state(trained), state(result.program))


def test_what_it_took_is_counted(program: Program, data: Data) -> None:
    spent = run(program, data, OPTIONS).spent
    assert (spent.steps, spent.samples) == (3 * 16, 3 * 16 * 32)
    assert spent.forward_macs == program.macs() == 16 * 8 * 9 + 16 * 64 * 9 + 128 * 4
    assert spent.backward_macs == 2 * spent.forward_macs
    assert spent.teacher_macs == 0
    taught = run(program, data, replace(OPTIONS, epochs=1, distill=4.0), teacher=program).spent
    assert taught.teacher_macs == program.macs()
    assert run(program, data, replace(OPTIONS, epochs=1), teacher=program).spent.teacher_macs == 0
