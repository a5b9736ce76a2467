"""Sizes in the user's own code: attributes of modules that hold a pruned width, found by running.

A module's code may take a size from an attribute of the module (``x.view(b, t, -1, self.head_dim)``), and nothing but
running it says which. So attributes whose value is a width that the plan changes, of the modules in which the module
first fails or first differs from the pruned program, are set to the new width and tried, until module and program are
equal, or no attribute gets them further.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Self

import torch
from torch import nn
from torch.fx import Node
from torch.utils import _pytree as pytree

from prunec.passes.dimensions import input_tensors
from prunec.passes.errors import NumericMismatchError, PrunecError, first_line
from prunec.passes.frontend import capture_to_run
from prunec.passes.graphs import LARGEST_SIZE, calls, module_path, operator_name
from prunec.passes.module_copy import duplicate
from prunec.passes.oracle import TOLERANCE, relative_error
from prunec.passes.own_attention import PrunedMultiheadAttention
from prunec.passes.own_layers import SHRINKING
from prunec.passes.program import Program
from prunec.passes.side_by_side import first_difference
from prunec.passes.size_attributes import Attributes, replaced, set_attributes, size_attributes
from prunec.passes.tensors import Inputs, copied_inputs, doubled
from prunec.passes.user_lines import line_of_error, line_of_trace

#: Trials at most, each of which runs the module.
_TRIALS = 24
#: Attributes of one module that are combined at most.
_COMBINED = 6


@dataclass(frozen=True)
class TrialOutcome:
    """What came of running the pruned module beside the pruned program.

    Attributes:
        progress: How far both were equal, greater the further.
        words: The place and the difference, as a clause; empty where they are equal.
        paths: Modules at whose code it happened, innermost first.
    """

    progress: tuple[int, ...]
    words: str = ""
    paths: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Trials:
    """A pruned module that is tried with values of its attributes.

    Attributes:
        module: The module, its tensors sliced.
        inputs: The example inputs.
        dense: The program before the pruning, of the same graph as ``pruned``.
        pruned: The program that the module must equal.
        constants: Tensors that stand in the module's attributes, cut; they are set in each trial.
        trains: Whether the module ran in training mode before the pruning, and so has to after it.
    """

    module: nn.Module
    inputs: Inputs
    dense: Program
    pruned: Program
    constants: Attributes
    trains: bool = False
    own: dict[str, dict[tuple[int, int], None]] = field(default_factory=dict)
    below: dict[str, dict[tuple[int, int], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node, twin in zip(self.dense.graph.nodes, self.pruned.graph.nodes, strict=True):
            if node.op != "call_function":
                continue
            path = _plain(module_path(node))
            sides = [(_shapes(node), _shapes(twin)), (node.args, twin.args), (node.kwargs, twin.kwargs)]
            for old, new in _changes(sides):
                self.own.setdefault(path, {})[old, new] = None
                for owner in _with_owners(path):
                    self.below.setdefault(owner, {})[old, new] = None

    def fitting(self) -> tuple[Attributes, list[TrialOutcome]]:
        """Attributes with which module and program are equal, as far as they were found.

        Returns:
            The attributes, and the outcomes of the steps towards them: the last one has no words where they are equal.
        """
        chosen: dict[tuple[str, str], Any] = {}
        outcomes = [self.attempt(chosen)]
        tried = [chosen]
        while outcomes[-1].words:
            best, further = outcomes[-1], chosen
            for alternatives in self._steps(outcomes[-1].paths):
                candidates = [chosen | step for step in alternatives]
                for candidate in candidates:
                    if best.words and candidate not in tried and len(tried) <= _TRIALS:
                        tried.append(candidate)
                        outcome = self.attempt(candidate)
                        best, further = max((best, further), (outcome, candidate), key=lambda pair: pair[0].progress)
                if further is not chosen:
                    break
            else:
                return chosen, outcomes
            chosen = further
            outcomes.append(best)
        return self._needed(chosen), outcomes

    def _needed(self, attributes: Attributes) -> Attributes:
        """Those without which the module, or a copy, doesn't run, or gives other outputs by a single bit.

        Classes may make copies from other attributes than those that they compute with.
        """
        needed, outputs = dict(attributes), self._run(attributes)
        for name in dict.fromkeys(name for _, name in attributes):
            fewer = {place: value for place, value in needed.items() if place[1] != name}
            runs = (self._run(fewer, of_copy=of_copy) for of_copy in (False, True))
            if all(_identical(run, outputs) for run in runs) and not self._training_failure(fewer):
                needed = fewer
        return needed

    def attempt(self, attributes: Attributes) -> TrialOutcome:
        """Run the module with these attributes, on copies: networks remember what they saw."""
        outcome = self._run(attributes)
        if isinstance(outcome, TrialOutcome):
            return outcome
        trial = self._with(attributes)
        active = _active_modules(trial)
        try:
            program = capture_to_run(trial, self.inputs)
        except PrunecError as error:
            words = f"in that it can't be captured any more: {error.message}"
            return TrialOutcome((1, -1), words, (active or active.failed)[::-1])
        try:
            difference = relative_error(*(in_float64(network) for network in (program, self.pruned)))
            words = f"the outputs differ by {difference:.1e} (relative)" if difference > TOLERANCE else ""
        except NumericMismatchError as mismatch:
            words = mismatch.message
        if not words:
            return self._training_failure(attributes) or TrialOutcome((3,))
        first = first_difference(program, self.pruned)
        if first is None:
            return TrialOutcome((1, len(program.graph.nodes)), words)
        path = _plain(module_path(first.node))
        line = line_of_trace(first.node.meta["trace"]) or f"in {path}"
        at = f"at {operator_name(first.node.target)}, {line}: it {first.words}"
        return TrialOutcome((1, first.position), at, [path])

    def _with(self, attributes: Attributes) -> nn.Module:
        trial = duplicate(self.module)
        set_attributes(trial, {**self.constants, **attributes})
        return trial.eval()

    def _training_failure(self, attributes: Attributes) -> TrialOutcome | None:
        """The outcome that the module doesn't run in training mode, where it did before."""
        outcome = self._run(attributes, training=True) if self.trains else None
        if not isinstance(outcome, TrialOutcome):
            return None
        return TrialOutcome((2, *outcome.progress), f"in training mode {outcome.words}", outcome.paths)

    def _run(self, attributes: Attributes, training: bool = False, of_copy: bool = False) -> Any:
        """The outputs of the module, or of a copy of it, or the `TrialOutcome` where it doesn't run."""
        trial = self._with(attributes)
        trial = (duplicate(trial) if of_copy else trial).train(training)
        active = _active_modules(trial)
        try:
            return _outputs(trial, self.inputs)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            place = (active and active[-1]) or "the network itself"
            line, number = line_of_error(error) or (f"in {place}", 0)
            names = (operator_name(node.target) for node in calls(self.dense.graph) if _is_at(node, line))
            at = ", ".join(dict.fromkeys(names)) or place
            words = f"at {at}, {line}: it doesn't run, {type(error).__name__}: {first_line(error)}"
            return TrialOutcome((0, active.begun, number), words, active[::-1])

    def _steps(self, paths: Sequence[str]) -> Iterator[list[dict[tuple[str, str], Any]]]:
        """Alternatives to try for attributes of the modules at fault, innermost first: of all modules of a class
        alike, or else of the one alone.
        """
        parts = dict(self.module.named_modules())
        for path in paths:
            alike = [other for other, part in parts.items() if type(part) is type(parts[path])]
            for members in [alike, [path]] if len(alike) > 1 else [alike]:
                options = {member: self._options(member, parts[member]) for member in members}
                names = list(options[path])[:_COMBINED]
                subsets = (chosen for count in range(len(names), 0, -1) for chosen in combinations(names, count))
                yield [step for chosen in subsets for step in _assignments(options, chosen)]

    def _options(self, path: str, part: nn.Module) -> dict[str, list[Any]]:
        """New values by attribute of a module, for those that hold sizes which change in its code or below."""
        if isinstance(part, PrunedMultiheadAttention) or (
            isinstance(part, SHRINKING) and getattr(part, "weight", None) is not None
        ):
            return {}  # `shrink` has set them
        pairs = {**self.own.get(path, {}), **self.below.get(path, {})}
        options = {name: replaced(value, pairs) for name, value in size_attributes(part).items()}
        return {name: values for name, values in options.items() if values}


class _Active(list[str]):
    """Paths of the modules that a run is in, outermost first; copies of the module write to it too.

    Attributes:
        begun: How many modules were entered.
        failed: Where an earlier run was when it failed.
    """

    begun = 0
    failed: tuple[str, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def _active_modules(module: nn.Module) -> _Active:
    """The modules that a run of a module is in, or was in where it failed, for as long as the module is there."""
    active = _Active()

    def enter(path: str) -> None:
        if not path:
            active.failed = tuple(active) or active.failed
            active.clear()
        active.append(path)
        active.begun += 1

    def leave(*_: Any) -> None:
        active.pop()

    for path, part in module.named_modules():
        part.register_forward_pre_hook(lambda *_, path=path: enter(path))
        part.register_forward_hook(leave)
    return active


def _assignments(
    options: Mapping[str, Mapping[str, list[Any]]], names: Sequence[str]
) -> Iterator[dict[tuple[str, str], Any]]:
    """Each module's first new value of each attribute, then each one's second."""
    for choice in range(2):
        step = {
            (path, name): values[name][choice]
            for path, values in options.items()
            for name in names
            if len(values.get(name, ())) > choice
        }
        if step:
            yield step


def _shapes(node: Node) -> list[Any]:
    """Shapes of the tensors that a node reads and yields."""
    return [other.meta["shapes"] for other in (*node.all_input_nodes, node) if other.meta["shapes"] is not None]


def _changes(sides: Sequence[tuple[Any, Any]]) -> Iterator[tuple[int, int]]:
    """Sizes that differ at the same place of two structures."""
    for before, after in sides:
        old, new = (pytree.tree_leaves(side) for side in (before, after))
        for a, b in zip(old, new, strict=False):
            if type(a) is int and type(b) is int and a != b and 1 < a < LARGEST_SIZE and b > 0:
                yield a, b


def _identical(left: Any, right: Any) -> bool:
    if isinstance(left, TrialOutcome):
        return False
    pairs = zip(input_tensors(left), input_tensors(right), strict=False)
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in pairs)


def _plain(path: str) -> str:
    """Path of a module without the number of its call."""
    return path.partition("@")[0]


def _with_owners(path: str) -> Iterator[str]:
    """A path and those of the modules that it is in, innermost first; "" is the network itself."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def _is_at(node: Node, line: str) -> bool:
    return line_of_trace(node.meta.get("trace", "")) == line


def in_float64(program: Program) -> Any:
    """Outputs of a program on its example input, in float64."""
    return _outputs(program.double().eval(), doubled((program.example_args, program.example_kwargs)))


def runs_in_training(module: nn.Module, inputs: Inputs) -> bool:
    """Whether a module runs in training mode on inputs of its eval mode: some need a target, or more samples."""
    try:
        _outputs(duplicate(module).train(), inputs)
    except Exception:  # noqa: BLE001 - the user's code may raise anything
        return False
    return True


def _outputs(network: Callable[..., Any], inputs: Inputs) -> Any:
    args, kwargs = copied_inputs(inputs)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return network(*args, **kwargs)
