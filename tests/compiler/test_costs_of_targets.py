"""Cost models of targets with 2:4: speed-ups compare the dense network with the pruned one that holds 2:4."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunec.compiler.facts.request import Request
from prunec.compiler.facts.settings import Settings
from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.recovery.objective import Objective
from prunec.compiler.stages.cost_models import cost_model
from prunec.passes.costs.counting import work_of
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.runtime.costs.roofline import roofline_costs
from prunec.runtime.target import Target
from tests.passes.costs.synthetic import engine

SPARSE = Target.parse("a100-2:4")


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4096, 8192), nn.ReLU(), nn.Linear(8192, 8192), nn.ReLU(), nn.Linear(8192, 64))
    return capture(net.eval(), (torch.randn(2, 4096),))


def request(program: Program, pipeline: str, target: Target = SPARSE) -> Request:
    settings = Settings(latency_batch=4096)
    return Request(program, target, parse_pipeline(pipeline), None, Objective(), settings)


def test_the_pruned_network_has_two_four_and_the_dense_one_has_not(program: Program) -> None:
    model = cost_model(request(program, "prune-filters{latency_speedup=1.5} sparsify")).model
    result = PruneFilters(latency_speedup=1.5).run(program, None, model)
    told = result.stats["allocation"]
    plain = roofline_costs(SPARSE, 4096)
    weights = frozenset(layer.weight for layer in program.layers())
    masked = roofline_costs(SPARSE, 4096, weights)
    assert told["dense"]["latency_ms"] == float(plain.network_ms(work_of(program)))  # type: ignore[union-attr]
    assert told["predicted"]["latency_ms"] == pytest.approx(
        float(masked.network_ms(work_of(result.program)))  # type: ignore[union-attr]
    )
    assert told["dense"]["latency_ms"] / told["predicted"]["latency_ms"] >= 1.5
    alone = PruneFilters(latency_speedup=1.5).run(program, None, model.plain)
    assert alone.program.macs() < result.program.macs(), "2:4 has its share of the speed-up"


@pytest.mark.parametrize(
    ("pipeline", "target", "masked"),
    [
        ("prune-filters{latency_speedup=1.5} sparsify", SPARSE, {"0.weight", "2.weight", "4.weight"}),
        ("prune-filters{latency_speedup=1.5} sparsify{ignore=[2]}", SPARSE, {"0.weight", "4.weight"}),
        ("prune-filters{latency_speedup=1.5}", SPARSE, set()),
        ("prune-filters{latency_speedup=1.5}", Target.parse("a100-dense"), set()),
    ],
)
def test_the_weights_are_those_that_the_pipeline_masks(
    program: Program, pipeline: str, target: Target, masked: set[str]
) -> None:
    assert cost_model(request(program, pipeline, target)).model.sparse_weights == masked  # type: ignore[attr-defined]


def test_widths_that_can_not_hold_two_four_run_dense(program: Program) -> None:
    work = work_of(program)
    odd = replace(work, in_channels=work.in_channels - 1)
    masked = roofline_costs(SPARSE, 4096, frozenset(layer.weight for layer in program.layers()))
    np.testing.assert_array_equal(masked.layer_ms(odd), masked.plain.layer_ms(odd))  # type: ignore[union-attr]


def test_a_measured_gain_is_that_of_the_plain_network(program: Program) -> None:
    work = work_of(program)
    model = replace(engine(work, 0), two_four_gain=1.25)
    assert float(model.plain.network_ms(work)) == pytest.approx(1.25 * float(model.network_ms(work)))
    assert (model.plain.two_four_gain, model.two_four_gain) == (1.0, 1.25)
    told = PruneFilters(latency_speedup=1.2).run(program, None, model).stats["allocation"]
    assert told["dense"]["latency_ms"] == pytest.approx(1.25 * float(model.network_ms(work)))
