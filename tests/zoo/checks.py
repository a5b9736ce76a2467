"""What must hold for every network of the zoo, and what is measured on the way."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from prunec.passes import PassResult, Program, PruneFilters, analyse, capture, check_oracle
from prunec.passes.coupling import Coupling
from prunec.passes.dimensions import input_tensors
from prunec.passes.errors import first_line
from prunec.passes.fold import FoldParameters
from prunec.passes.oracle import TOLERANCE, relative_error
from prunec.passes.permute import Permute
from prunec.passes.plan import PruningPlan
from prunec.runtime.engines.protocol import TOLERANCES
from prunec.runtime.onnx_export import export_onnx
from tests.network_checks import FLOAT32, bf16_error, check_pruned, fp16_error, macs_cut, pruned
from tests.passes.checks import random_prune
from tests.zoo.corpus import BY_NAME, build, example

#: Everything that may go, goes: residual streams, attention, groups under inexact operators.
EVERYTHING = PruneFilters(ratio=0.5, min_channels=2)
EXACT_ONLY = PruneFilters(ratio=0.5, min_channels=2, inexact_groups="freeze")
MUTATIONS = 20
#: Exchanged indices per mutated dimension before it counts as missed: some slices are zero on any input.
_TRIES = 12
#: Outputs that differ by less between images, or by the pruning, could hide errors.
_LEAST_DIFFERENCE = 1e-5
_STEPS = 2


@dataclass
class Row:
    """What is known of one network.

    Attributes:
        name: Name of the network.
        kind: its class.
        nodes: calls in the graph.
        groups: prunable groups.
        prunable: share of the dense MACs in layers that some prunable group is part of.
        cut: share of the MACs that goes at ratio 0.5 with everything open.
        cut_exact: the same with groups under inexact operators frozen, and weights that are computed folded first.
        inexact: operators that mix the channels of prunable groups.
        error: Error of the oracle, against the zeroed dense program.
        masked_error: the same where inexact operators see the kept channels only.
        seconds: Processor time for each step and check.
        frozen: reasons why groups are frozen, and how many are.
        unknown: operators without a rule, and how many nodes they are.
        failures: what didn't hold, one line each.
    """

    name: str
    kind: str
    nodes: int = 0
    groups: int = 0
    prunable: float = 0.0
    cut: float = 0.0
    cut_exact: float = 0.0
    inexact: list[str] = field(default_factory=list)
    error: float | None = None
    masked_error: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    frozen: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``Row(**values)`` is the inverse."""
        return asdict(self)


@dataclass(frozen=True)
class Subject:
    """One network under test.

    Attributes:
        program: the dense program, float32.
        result: Result of pruning everything.
        x: three images.
    """

    program: Program
    result: PassResult
    x: Tensor

    @cached_property
    def pruned(self) -> Program:
        """The pruned program in float64."""
        return self.result.program.double().eval()

    @cached_property
    def output(self) -> Any:
        """Of the pruned program in float64, for one image."""
        return run(self.pruned, self.x[:1].double())

    def images(self, count: int) -> Tensor:
        """The first images; all that the example has where the program fixes its batch."""
        return self.x[: count if self.program.batch_is_dynamic else len(self.program.example_inputs[0])]


@torch.no_grad()
def run(program: Program, x: Tensor) -> Any:
    """Outputs of a program that may change its input."""
    return program(x.clone())


def examine(name: str, mutations: int = MUTATIONS) -> Row:
    """Capture, prune and check a network of the zoo.

    Args:
        name: as in the corpus.
        mutations: pruned dimensions in which one kept index is exchanged.

    Returns:
        Its row; whatever goes wrong is among the failures.
    """
    row = Row(name, BY_NAME[name].kind)
    with _recorded(row, "capture"):
        network = build(name)
        with _timed(row, "capture"):
            program = capture(network, (example(name),))
        del network
        subject = _prune(row, program, example(name, batch=3, seed=1))
        if subject is not None:
            for title, check in CHECKS.items():
                with _recorded(row, title), _timed(row, title):
                    check(subject, row)
            with _recorded(row, "mutations"), _timed(row, "mutations"):
                check_mutations(subject, mutations)
    return row


def _prune(row: Row, program: Program, x: Tensor) -> Subject | None:
    with _recorded(row, "prune"):
        with _timed(row, "prune"):
            coupling = analyse(program)
            result = pruned(EVERYTHING, program)
        _describe(row, program, coupling)
        row.cut = macs_cut(result)
        return Subject(program, result, x)
    return None


def _describe(row: Row, program: Program, coupling: Coupling) -> None:
    members = {member.parameter for group in coupling.groups for member in group.members}
    row.nodes = sum(node.op == "call_function" for node in program.graph.nodes)
    row.groups = len(coupling.groups)
    row.prunable = sum(layer.macs for layer in program.layers() if layer.weight in members) / program.macs()
    row.inexact = sorted({operator for group in coupling.groups for operator in group.inexact})
    row.unknown = coupling.unknown_operators
    for group in coupling.frozen:
        for reason in group.reasons:
            row.frozen[reason] = row.frozen.get(reason, 0) + 1
    if not coupling.groups:
        row.failures.append("prune: nothing can be pruned")


@contextmanager
def _timed(row: Row, step: str) -> Iterator[None]:
    start = time.process_time()
    try:
        yield
    finally:
        row.seconds[step] = round(time.process_time() - start, 2)


@contextmanager
def _recorded(row: Row, step: str) -> Iterator[None]:
    """One failure doesn't hide those that come after it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this network's failure
        row.failures.append(f"{step}: {type(error).__name__}: {first_line(error)}")


def check_everything(subject: Subject, row: Row) -> None:
    """Pruned by importance, everything open: equal to the zeroed program, or to the masked one where that differs."""
    report = check_pruned(subject.program, subject.result, (subject.images(2),))
    row.error, row.masked_error = report.max_relative_error, report.masked_max_relative_error


def check_exact_only(subject: Subject, row: Row) -> None:
    """With groups under inexact operators frozen the pruned program equals the zeroed one; with folded weights too."""
    folded = FoldParameters().run(subject.program)
    for program in [subject.program] + [folded.program] * folded.modified:
        result = pruned(EXACT_ONLY, program)
        row.cut_exact = macs_cut(result)
        if result.plan != subject.result.plan:
            error = check_oracle(program, result, (subject.images(2),)).max_relative_error
            assert error < TOLERANCE, f"error {error:.2g}"


def check_random_plan(subject: Subject, row: Row) -> None:
    """Any other choice of units is as right as that of the least important ones."""
    result = random_prune(subject.program, seed=3, least=2)
    error = check_oracle(subject.program, result, (subject.images(2),)).masked_max_relative_error
    assert error < TOLERANCE, f"masked error {error:.2g}"


def check_says_something(subject: Subject, row: Row) -> None:
    """The pruned outputs depend on the image and differ from the dense ones."""
    other = run(subject.pruned, subject.x[1:2].double())
    between = relative_error(other, subject.output)
    assert between > _LEAST_DIFFERENCE, f"images differ by {between:.2g}"
    if subject.result.modified:
        dense = relative_error(run(subject.program.double().eval(), subject.x[:1].double()), subject.output)
        assert dense > _LEAST_DIFFERENCE, f"pruned and dense differ by {dense:.2g}"


def check_batches(subject: Subject, row: Row) -> None:
    """An image's output is the same in a batch of 2 and of 3."""
    assert subject.program.batch_is_dynamic, "the batch is fixed"
    two, three = (input_tensors(run(subject.result.program, subject.x[:batch])) for batch in (2, 3))
    for a, b in zip(two, three, strict=True):
        assert (len(a), len(b)) == (2, 3), f"outputs of shapes {tuple(a.shape)} and {tuple(b.shape)}"
    error = relative_error(two, [b[:2] for b in three])
    assert error < FLOAT32, f"error {error:.2g}"


def check_saved(subject: Subject, row: Row) -> None:
    """Exported anew, saved and loaded, the pruned program is the same."""
    program = subject.result.program
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruned.pt2"
        program.save(path)
        loaded = Program.load(path)
    x = subject.images(3)
    error = relative_error(run(loaded, x), run(program, x))
    assert error < FLOAT32, f"error {error:.2g}"


def check_onnx(subject: Subject, row: Row) -> None:
    """ONNX Runtime computes what the pruned program does, at batch 2 and 3."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruned.onnx"
        export_onnx(subject.result.program, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        _check_halves(subject.result.program, path, Path(folder))
    for x in (subject.images(2), subject.images(3)):
        actual = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        error = relative_error([torch.from_numpy(value) for value in actual], run(subject.result.program, x))
        assert error < FLOAT32, f"error {error:.2g} at batch {len(x)}"


def _check_halves(program: Program, path: Path, folder: Path) -> None:
    """The forms of 16 bits are valid for ONNX's checker and shape inference, and compute what the program does."""
    errors = {
        "fp16": fp16_error(program, path, folder / "fp16.onnx"),
        "bf16": bf16_error(program, path, folder / "bf16.onnx"),
    }
    for precision, error in errors.items():
        assert error < TOLERANCES[precision], f"error {error:.2g} in {precision}"


def check_training(subject: Subject, row: Row) -> None:
    """The pruned program trains: losses and gradients are finite, no parameter is cut off, and it still infers."""
    program = subject.result.program.clone().train()
    parameters = program.parameters()
    optimizer = torch.optim.SGD(parameters.values(), lr=1e-3)
    x = subject.images(2)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        outputs = [y for y in input_tensors(program(x.clone())) if y.is_floating_point()]
        loss = torch.stack([y.square().mean() for y in outputs]).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0, error_if_nonfinite=True)
        optimizer.step()
    cut_off = [name for name, parameter in parameters.items() if parameter.grad is None]
    assert not cut_off, f"no gradients: {', '.join(cut_off)}"
    assert all(y.isfinite().all() for y in input_tensors(run(program.eval(), x))), "outputs are not finite"


def check_permutation(subject: Subject, row: Row) -> None:
    """Channels in another order, chosen for 2:4, are the same function; only mixed ones may have to keep theirs."""
    result = Permute(seconds=1).run(subject.program)
    error = relative_error(
        run(result.program.double().eval(), subject.x[:1].double()),
        run(subject.program.double().eval(), subject.x[:1].double()),
    )
    assert error < TOLERANCE, f"error {error:.2g}"
    assert all(layer["retained_after"] >= (1 - 1e-3) * layer["retained_before"] for layer in result.stats["layers"])
    refused = {group["name"] for group in result.stats["groups"] if "changes what" in group["reason"]}
    unexpected = refused - {group.name for group in analyse(subject.program).groups if group.inexact}
    assert not unexpected, f"order matters for {', '.join(sorted(unexpected))}"


def check_mutations(subject: Subject, count: int) -> None:
    """Exchanging one kept index in any pruned dimension changes the output by more than the oracle's tolerance.

    The oracle has found the pruned program equal to its reference, so that a mutant that differs from the one by
    more than twice the tolerance differs from the other by more than the tolerance.
    """
    plan = subject.result.plan
    assert plan is not None
    random = Random(5)
    tensors, mutated = subject.program.tensors(), subject.pruned.tensors()
    places = [(name, dim) for name, dims in plan.kept.items() for dim in dims]

    def is_caught(name: str, value: Tensor) -> bool:
        original = mutated[name].detach().clone()
        with torch.no_grad():
            mutated[name].copy_(value)
            error = relative_error(run(subject.pruned, subject.x[:1].double()), subject.output)
            mutated[name].copy_(original)
        return error > 2 * TOLERANCE

    missed = []
    for name, dim in random.sample(places, min(count, len(places))):
        mutants = _exchanges(plan, name, dim, tensors[name].shape[dim], random)
        # What no value at all changes is a bias, say, that the next operator subtracts again.
        if not any(is_caught(name, mutant.select(name, tensors[name])) for mutant in mutants) and is_caught(
            name, torch.rand_like(mutated[name])
        ):
            missed.append(f"{name}, dimension {dim}")
    assert not missed, f"not caught: {'; '.join(missed)}"


def _exchanges(plan: PruningPlan, name: str, dim: int, size: int, random: Random) -> Iterator[PruningPlan]:
    kept = plan.kept[name][dim]
    gone = sorted(set(range(size)) - set(kept))
    for position in random.sample(range(len(kept)), min(_TRIES, len(kept))):
        other = [*kept[:position], random.choice(gone), *kept[position + 1 :]]
        yield PruningPlan({name: {**plan.kept[name], dim: other}})


CHECKS: dict[str, Callable[[Subject, Row], None]] = {
    "oracle": check_everything,
    "exact only": check_exact_only,
    "random plan": check_random_plan,
    "outputs": check_says_something,
    "permutation": check_permutation,
    "batches": check_batches,
    "export": check_saved,
    "onnx": check_onnx,
    "training": check_training,
}
