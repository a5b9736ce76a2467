"""No wrong output, ever: random networks pruned in random ways. A failing case shrinks and prints itself as code."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers
from torch.fx import Node

from prunec.passes import frontend
from prunec.passes.labels import Ties, Value
from prunec.passes.rules import registry
from tests.fuzz.checking import Outcome, Pruning, check
from tests.fuzz.networks import Description, descriptions
from tests.fuzz.writing import build

#: Networks of `make test` and of `make test-long`, and how many one test runs.
SHORT, LONG = 200, 2000
PER_CHUNK = 25


@pytest.fixture(autouse=True)
def _quick_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second export that looks for what training does: a third of the time, and tested elsewhere."""
    monkeypatch.setattr(frontend, "lost_in_capture", lambda *_: ())


@dataclass(frozen=True)
class Case:
    """A network and how it is pruned."""

    network: Description
    pruning: Pruning

    def program(self) -> str:
        """A program that does what `run` does; it needs this folder on the path."""
        return (
            f"{self.network.source()}\n\n"
            f"from tests.fuzz.checking import Pruning, check\n\n"
            f"check(Network(), {self.pruning!r})\n"
        )

    def run(self) -> Outcome:
        """Build, prune, check.

        Raises:
            AssertionError: A case failed; the message has it as code.
        """
        try:
            return check(build(self.network.source()), self.pruning)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n\n{self.program()}") from error


def cases() -> st.SearchStrategy[Case]:
    prunings = st.builds(
        Pruning,
        units=st.sampled_from(["any", "all but one", "l1", "random"]),
        ratio=st.sampled_from([0.5, 0.3, 0.8]),
        attention=st.sampled_from(["head_dim", "heads", "none"]),
        grouped=st.sampled_from(["auto", "groups", "index"]),
        inexact_groups=st.sampled_from(["freeze", "prune"]),
        seed=st.integers(0, 2**16),
    )
    return st.builds(Case, descriptions(), prunings)


def fuzz(number: int, run: Callable[[Case], Outcome], examples: int = PER_CHUNK) -> list[Outcome]:
    """Run cases of as many different networks, the same ones for the same number."""
    outcomes: dict[str, Outcome] = {}
    failed: list[Case] = []

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(cases())
    def once(case: Case) -> None:
        source = case.network.source()
        # Hypothesis likes to vary what it has tried already; while it shrinks it should.
        assume(failed or source not in outcomes)
        try:
            outcomes[source] = run(case)
        except AssertionError:
            failed.append(case)
            raise

    # Hypothesis would also draw constants of all loaded modules, so that other tests decided on these networks.
    with (
        patch.object(providers, "_get_local_constants", providers.Constants),
        patch.object(providers, "CONSTANTS_CACHE", type(providers.CONSTANTS_CACHE)(1024)),
    ):
        once()
    return list(outcomes.values())


def check_chunk(number: int) -> None:
    outcomes = fuzz(number, Case.run)
    assert len(outcomes) == PER_CHUNK
    assert sum(outcome.pruned for outcome in outcomes) >= 0.7 * PER_CHUNK
    assert sum(outcome.varies for outcome in outcomes) >= 0.7 * PER_CHUNK
    # Some rightly make no difference: what is always clamped.
    assert sum(outcome.caught for outcome in outcomes) >= 0.9 * sum(outcome.mutations for outcome in outcomes) > 0


@pytest.mark.parametrize("number", range(SHORT // PER_CHUNK))
def test_pruned_equals_zeroed(number: int) -> None:
    check_chunk(number)


@pytest.mark.long
@pytest.mark.parametrize("number", range(SHORT // PER_CHUNK, (SHORT + LONG) // PER_CHUNK))
def test_pruned_equals_zeroed_on_many(number: int) -> None:
    check_chunk(number)


def test_a_failing_case_shrinks_and_prints_itself_as_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def reversed_channels(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
        return tuple(label and label.take(label.atoms[::-1]) for label in ties.of(a["self"]))  # type: ignore[union-attr]

    with monkeypatch.context() as patch:
        patch.setitem(registry.RULES, "relu", reversed_channels)
        with pytest.raises(AssertionError) as failure:
            fuzz(0, Case.run)
        message = str(failure.value)
        code = message[message.index("import torch\n") :]
        with pytest.raises(AssertionError, match="max_relative_error"):
            exec(code, {"__name__": "printed"})
    exec(code, {"__name__": "printed"})
    assert code.count("self.") <= 12, "It has not shrunk."
