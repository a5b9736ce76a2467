"""The optimizer of a training: torch's own to the bit, its options, the user's own, resumed and clipped."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from prunec.calibration.data import Data
from prunec.compiler.recovery.default_schedule import choose_schedule
from prunec.compiler.recovery.optimizer_kinds import OwnOptimizer, choose_optimizer
from prunec.compiler.recovery.optimizers import norms_and_biases
from prunec.compiler.recovery.recover import EpochRecord, Recover, StateOptions
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.passes.errors import InputError, UsageError
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.sparsify import Sparsify
from tests.architectures.vit import ViT
from tests.recovery import toy_hooks
from tests.recovery.networks import OPTIONS, network, run, same, state

Make = Callable[[Any], Optimizer]
Groups = list[dict[str, Any]]


def rmsprop(groups: Groups) -> Optimizer:
    return RMSprop(groups, momentum=0.5)


OWN = OwnOptimizer("mine:rmsprop", rmsprop)
#: Options of a recipe, and the same optimizer by torch.
ALIKE: dict[str, tuple[dict[str, Any], Make]] = {
    "sgd": ({"optimizer": "sgd"}, lambda p: SGD(p, momentum=0.9, weight_decay=5e-4)),
    "nesterov": (
        {"optimizer": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 0.0},
        lambda p: SGD(p, momentum=0.8, nesterov=True),
    ),
    "adam": ({"optimizer": "adam"}, Adam),
    "adamw": ({"optimizer": "adamw"}, lambda p: AdamW(p, weight_decay=0.01)),
    "adamw by options": (
        {"optimizer": "adamw", "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1},
        lambda p: AdamW(p, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
    ),
    "own": ({"optimizer": OWN}, rmsprop),
}


@pytest.mark.parametrize("name", ALIKE)
def test_it_is_torch_s_own_loop_to_the_bit(program: Program, data: Data, name: str) -> None:
    given, make = ALIKE[name]
    sparse = Sparsify().run(program).program
    trained = sparse.clone().train()
    optimizer = make(trained.module.parameters())
    for group in optimizer.param_groups:
        group["lr"] = 0.003
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for epoch in range(OPTIONS.epochs):
            for inputs, labels in data.train.batches(OPTIONS.batch_size, epoch=epoch, seed=0):
                optimizer.zero_grad()
                cross_entropy(trained(inputs), labels).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                trained.apply_masks()
    result = run(sparse, data, replace(OPTIONS, schedule="constant:0.003", keep="last", **given))
    assert same(state(trained), state(result.program))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", OWN], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_resumed_training_ends_in_the_same_bits(
    program: Program, data: Data, tmp_path: Any, optimizer: str, precision: str
) -> None:
    sparse = Sparsify().run(program).program
    options = Recover(
        epochs=3, schedule="cosine:0.003", batch_size=32, optimizer=optimizer, decay_norms_and_biases=False,
        precision=precision, ema=0.9, accumulate=2, clip_norm=1.0, keep="last",
    )  # fmt: skip

    def stop(record: EpochRecord, _: Program) -> None:
        if record.epoch == 2:
            raise Stopped

    file = StateOptions(tmp_path / "state.pt", resume=True, every_steps=7)
    with pytest.raises(Stopped):
        run(sparse, data, options, state=file, progress=stop)
    resumed = run(sparse, data, options, state=file)
    assert resumed.resumed
    assert same(state(run(sparse, data, options).program), state(resumed.program))
    for name, mask in sparse.masks.items():
        assert bool((resumed.program.parameters()[name][~mask] == 0).all())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "adam"}, "optimizer was adamw and is adam"),
        ({"betas": (0.9, 0.99)}, r"betas was \(0.9, 0.999\) and is \(0.9, 0.99\)"),
        ({"decay_norms_and_biases": False}, "decay_norms_and_biases was True and is False"),
    ],
)
def test_a_state_of_another_optimizer_is_refused(
    program: Program, data: Data, tmp_path: Any, change: dict[str, Any], words: str
) -> None:
    file = StateOptions(tmp_path / "state.pt", resume=True)
    options = Recover(epochs=1, schedule="constant:0.001", optimizer="adamw")
    run(program, data, options, state=file)
    with pytest.raises(InputError, match=words):
        run(program, data, replace(options, **change, weight_decay=0.01), state=file)


def test_a_state_of_the_user_s_optimizer_with_other_settings_is_refused(
    program: Program, data: Data, tmp_path: Any
) -> None:
    file = StateOptions(tmp_path / "state.pt", resume=True)
    run(program, data, replace(OPTIONS, optimizer=OWN), state=file)
    other = OwnOptimizer(OWN.reference, lambda groups: RMSprop(groups, momentum=0.6))
    with pytest.raises(InputError, match="optimizer settings was"):
        run(program, data, replace(OPTIONS, optimizer=other), state=file)


def test_the_optimizer_of_a_state_may_be_named_or_chosen(program: Program, data: Data, tmp_path: Any) -> None:
    file = StateOptions(tmp_path / "state.pt", resume=True)
    run(program, data, OPTIONS, state=file)
    named = replace(OPTIONS, optimizer="sgd", momentum=0.9, weight_decay=5e-4)
    assert run(program, data, named, state=file).resumed


def test_masked_weights_don_t_count_in_the_norm_that_is_clipped(data: Data) -> None:
    """One step against the formula, with the norm over the weights that are kept."""
    program = Sparsify().run(capture(network(dropout=0.0), (torch.zeros(2, 1, 8, 8),))).program
    options = Recover(epochs=1, schedule="constant:1", batch_size=540, momentum=0, weight_decay=0, keep="last")
    inputs, labels = next(data.train.batches(540, epoch=0, seed=0))
    trained = program.clone().train()
    cross_entropy(trained(inputs), labels).backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in trained.parameters().items() if p.grad is not None}
    kept = {name: g * program.masks[name] if name in program.masks else g for name, g in gradients.items()}
    norm, whole = (sum(float(g.square().sum()) for g in of.values()) ** 0.5 for of in (kept, gradients))
    assert whole > 1.05 * norm, "the gradients of masked weights are too small to tell"
    after = run(program, data, replace(options, clip_norm=norm / 2)).program.parameters()
    for name, before in program.parameters().items():
        torch.testing.assert_close(after[name], before - kept[name] / 2, rtol=1e-4, atol=1e-6)
    # Between the two norms nothing is to be clipped.
    unclipped, clipped = (run(program, data, replace(options, clip_norm=c)) for c in (0.0, (norm + whole) / 2))
    assert same(state(unclipped.program), state(clipped.program))


def test_norms_and_biases_may_be_spared_from_weight_decay(data: Data) -> None:
    program = capture(network(dropout=0.0), (torch.zeros(2, 1, 8, 8),))
    options = Recover(epochs=1, schedule="constant:0.1", batch_size=540, optimizer="adamw", weight_decay=0.5)
    frozen = {"loss": lambda outputs, labels: 0 * outputs.sum()}
    everywhere = run(program, data, options, **frozen).program.parameters()
    spared = run(program, data, replace(options, decay_norms_and_biases=False), **frozen).program.parameters()
    for name, before in program.parameters().items():
        torch.testing.assert_close(everywhere[name], before * (1 - 0.1 * 0.5))
        torch.testing.assert_close(spared[name], before * (1 if before.ndim == 1 else 1 - 0.1 * 0.5))


def test_norms_of_several_dimensions_are_norms() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.LayerNorm((4, 8, 8)), nn.Flatten(), nn.Linear(256, 1))
    program = capture(module, (torch.zeros(2, 1, 8, 8),))
    names = {name for name, p in program.parameters().items() if any(p is q for q in norms_and_biases(program))}
    assert names == {"0.bias", "1.weight", "1.bias", "3.bias"}


def test_a_transformer_s_positions_and_matrices_are_decayed() -> None:
    program = capture(ViT(32, 16, 32, 1, 2, 10), (torch.zeros(2, 3, 32, 32),))
    spared = norms_and_biases(program)
    for name, parameter in program.parameters().items():
        is_spared = any(parameter is other for other in spared)
        assert is_spared == (parameter.ndim == 1), name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "adamx"}, "'adamx' is unknown"),
        ({"optimizer": "mine:"}, "'mine:' is unknown"),
        ({"optimizer": "adamw", "momentum": 0.9}, "AdamW has no option momentum"),
        ({"optimizer": "adamw", "momentum": 0.0}, "AdamW has no option momentum"),
        ({"optimizer": "adam", "nesterov": True}, "Adam has no option nesterov"),
        ({"optimizer": "sgd", "betas": (0.9, 0.99)}, "SGD has no option betas"),
        ({"optimizer": "sgd", "eps": 1e-8}, "SGD has no option eps"),
        ({"optimizer": OWN, "weight_decay": 0.1}, "mine:rmsprop has no option weight_decay"),
        ({"optimizer": "adam", "betas": (0.9, 1.0)}, "betas must be"),
        ({"optimizer": "adam", "eps": -1.0}, "eps must be"),
        ({"optimizer": "adam", "betas": (0.9,)}, "betas must be two numbers"),
        ({"optimizer": "adam", "betas": (0.9, 0.9, 0.9)}, "betas must be two numbers"),
        ({"optimizer": "adamw", "schedule": "clr"}, "clr without a learning rate means one for SGD"),
        ({"optimizer": "adamw", "schedule": "rest(1): slr"}, "slr without a learning rate means one for SGD"),
        ({"schedule": " wr"}, "early must be given for the schedule wr"),
    ],
)
def test_options_that_the_optimizer_doesn_t_have_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(OPTIONS, **options)


def test_an_option_is_refused_where_the_dense_training_decides() -> None:
    options = replace(OPTIONS, momentum=0.8)
    assert options.resolved(None).optimizer == "sgd"
    with pytest.raises(UsageError, match="AdamW has no option momentum"):
        options.resolved("adamw")


def test_the_default_is_the_optimizer_of_the_dense_training() -> None:
    assert choose_optimizer("adamw").optimizer == "adamw"
    assert "trained with it" in choose_optimizer("adamw").reason
    assert choose_optimizer(None).optimizer == "sgd"
    assert "nothing states" in choose_optimizer(None).reason
    assert OPTIONS.resolved("adam").betas == (0.9, 0.999)


@pytest.mark.parametrize(
    ("original", "optimizer", "dense_optimizer", "expected", "words"),
    [
        ("cosine:0.001", "adamw", "adamw", "clr:0.0005", "0.5 times 0.001, the highest rate of the dense training"),
        ("cosine:0.003", "adam", "adamw", "clr:0.0015", "the highest rate of the dense training"),
        ("cosine:0.001", "sgd", "adamw", "clr:0.05", "usual by SGD"),
        ("cosine:0.2", "adamw", "sgd", "clr:0.0005", "usual by AdamW"),
        ("cosine:0.2", "adamw", None, "clr:0.0005", "usual by AdamW"),
        ("cosine:0.2", "sgd", None, "clr:0.1", "taken to be one of SGD"),
        ("cosine:0.2", "sgd", "sgd", "clr:0.1", "the highest rate of the dense training"),
        (None, "adamw", None, "clr:0.0005", "usual by AdamW"),
        ("cosine:0.02", "mine:lion", "mine:lion", "clr:0.01", "the highest rate of the dense training"),
    ],
)
def test_the_default_rate_is_one_for_the_optimizer(
    original: str | None, optimizer: str, dense_optimizer: str | None, expected: str, words: str
) -> None:
    dense = None if original is None else parse_schedule(original, epochs=12)
    choice = choose_schedule(0.5, dense, optimizer, dense_optimizer)
    assert choice.schedule == expected
    assert words in choice.reason


def test_no_rate_is_known_for_an_unknown_optimizer() -> None:
    with pytest.raises(UsageError, match="no learning rate is known to fit the optimizer mine:lion"):
        choose_schedule(0.5, parse_schedule("cosine:0.1", epochs=12), "mine:lion", "sgd")


def fails(groups: Groups) -> Optimizer:
    raise ValueError("no such thing")


BROKEN: dict[str, tuple[Callable[[Groups], Any], str]] = {
    "no optimizer": (lambda groups: 3, "gave int; expected a torch.optim.Optimizer"),
    "error": (fails, r"failed at .*test_optimizers\.py:\d+: ValueError: no such thing"),
    "takes more": (
        lambda groups, learning_rate: SGD(groups, learning_rate / 2),
        r"failed \(.*test_optimizers\.py:\d+\): TypeError",
    ),
    "closure": (lambda groups: torch.optim.LBFGS(groups[0]["params"]), "LBFGS of mine:it evaluates the loss itself"),
    "too few": (lambda groups: SGD(groups[:1], 0.1), "holds 3 of the 5 parameters"),
    "others": (lambda groups: SGD([*groups, {"params": [nn.Parameter(torch.zeros(1))]}], 0.1), "and 1 others"),
    "lost settings": (
        lambda groups: SGD([p for g in groups for p in g["params"]], weight_decay=0.1),
        "lost weight_decay = 0",
    ),
    "no such setting": (torch.optim.Rprop, "sets weight_decay, which Rprop doesn't have"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_functions_that_give_no_usable_optimizer_are_refused(data: Data, case: str) -> None:
    function, words = BROKEN[case]
    program = capture(network(norm=False), (torch.zeros(2, 1, 8, 8),))
    options = replace(OPTIONS, optimizer=OwnOptimizer("mine:it", function), decay_norms_and_biases=False)
    with pytest.raises(InputError if "failed" in words else UsageError, match=words):
        run(program, data, options)


def test_a_function_that_isn_t_loaded_is_a_usage_error(program: Program, data: Data) -> None:
    with pytest.raises(UsageError, match="mine:it isn't loaded"):
        run(program, data, replace(OPTIONS, optimizer="mine:it"))


def test_groups_of_the_user_s_optimizer_have_rates_of_their_own(program: Program, data: Data) -> None:
    """A factor of 0 holds a group still, as layer-wise decay of the rate would."""

    def make(groups: Groups) -> Optimizer:
        first, *others = [p for group in groups for p in group["params"]]
        return SGD([{"params": [first], "learning_rate_factor": 0.0}, {"params": others}], 1.0)

    after = run(program, data, replace(OPTIONS, optimizer=OwnOptimizer("mine:it", make))).program.parameters()
    before = program.parameters()
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["3.weight"], before["3.weight"])


def test_a_hook_s_setting_that_the_optimizer_doesn_t_have_is_refused(program: Program, data: Data) -> None:
    options = Recover(epochs=1, schedule="constant:1e-3", optimizer="adamw", hooks=(toy_hooks.Compactor(),))
    with pytest.raises(UsageError, match="sets momentum, which AdamW doesn't have"):
        run(program, data, options)


class Adapting(SGD):
    """Keeps what it has learnt of the rate among its settings, as D-adaptation does, and takes any arguments."""

    def __init__(self, groups: Groups) -> None:
        super().__init__([{"distance": 1.0, **group} for group in groups])
        self.defaults["distance"] = 1.0

    def step(self, *arguments: Any, **named: Any) -> Any:
        for group in self.param_groups:
            group["distance"] *= 1.01
            group["lr"] *= group["distance"]
        return super().step(*arguments, **named)


def test_the_settings_of_an_optimizer_that_adapts_them_are_those_that_it_began_with(
    program: Program, data: Data, tmp_path: Any
) -> None:
    options = replace(OPTIONS, optimizer=OwnOptimizer("mine:adapting", Adapting), schedule="constant:1e-6")
    file = StateOptions(tmp_path / "state.pt", resume=True)
    whole, resumed = (run(program, data, options, state=file) for _ in range(2))
    assert resumed.resumed
    assert "distance=1.0" in whole.optimizer_settings
    assert resumed.optimizer_settings == whole.optimizer_settings


class NeedsClosure(SGD):
    def step(self, closure: Any = None) -> Any:
        assert closure is not None, "closure needed"
        return super().step(closure)


def test_a_step_of_the_user_s_optimizer_that_fails_is_told_with_its_line(program: Program, data: Data) -> None:
    options = replace(OPTIONS, optimizer=OwnOptimizer("mine:sam", NeedsClosure))
    where = r"step of the optimizer mine:sam failed at .*test_optimizers\.py:\d+: AssertionError: closure needed"
    with pytest.raises(InputError, match=where):
        run(program, data, options)


def test_settings_are_told(program: Program, data: Data) -> None:
    result = run(program, data, Recover(epochs=1, schedule="constant:1e-3", optimizer="adamw"))
    assert result.optimizer_settings.startswith("AdamW(betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01")
    assert result.options.betas == (0.9, 0.999)
    assert result.options.weight_decay == 0.01
    assert result.options.momentum is None
