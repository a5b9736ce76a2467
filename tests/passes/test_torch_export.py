"""Calls of ``torch.export``: the lines of code that operators come from, which some traces note and others don't."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from prunec.passes import Program, capture
from prunec.passes.torch_export import without_lines


class Net(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) + 1


def lines_of(program: Program) -> int:
    """The number of operators whose line is known."""
    return sum(bool(node.meta["trace"]) for node in program.graph.nodes)


def captured() -> Program:
    return capture(Net(), (torch.zeros(2, 3),))


@pytest.mark.usefixtures("exported_anew")
def test_a_trace_without_lines_leaves_those_of_other_threads_and_later_ones() -> None:
    with ThreadPoolExecutor(1) as other:
        with without_lines(), without_lines():
            assert other.submit(lambda: lines_of(captured())).result() == 2
        with without_lines():
            with pytest.raises(ValueError, match="within"), without_lines():
                raise ValueError("within")
            within = lines_of(captured())
        assert within == (0 if hasattr(torch.fx.config, "do_not_emit_stack_traces") else 2)
        assert lines_of(captured()) == 2


def test_where_torch_has_no_such_flag_it_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.fx.config, "do_not_emit_stack_traces", raising=False)
    with without_lines():
        assert not hasattr(torch.fx.config, "do_not_emit_stack_traces")
