"""Cost models that are really measured, and whose kernels really are attributed."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from prunec.passes.errors import InputError, MissingDependencyError, UnsupportedModelError
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.runtime.costs.attribution import kernel_owners, value_owners
from prunec.runtime.costs.measuring import measure_costs
from prunec.runtime.costs.variants import VariantBudget
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.target import Target
from tests.passes.checks import Net, captured, normal
from tests.passes.costs.synthetic import workload

CPU = Target.parse("cpu")


def residual(net: Net, x: Tensor) -> Tensor:
    y = net.a(x).relu()
    y = (net.b(y) + net.shortcut(y)).relu()
    y = torch.nn.functional.max_pool2d(net.c(y).relu(), 2)
    return net.head(net.shared(net.shared(y.mean((2, 3))).relu()))  # type: ignore[no-any-return]


def network(width: int = 32) -> Program:
    convolutions = {name: nn.Conv2d(width, width, 3, padding=1) for name in ("b", "c")}
    torch.manual_seed(0)
    net = Net(
        residual, a=nn.Conv2d(3, width, 3, padding=1), shortcut=nn.Conv2d(width, width, 1), **convolutions,
        shared=nn.Linear(width, width), head=nn.Linear(width, 10),
    )  # fmt: skip
    return capture(net.eval(), (torch.randn(2, 3, 16, 16),))


@pytest.mark.parametrize("width", [32, 31])
def test_every_kernel_belongs_to_its_layer(width: int, tmp_path: Path) -> None:
    program = network(width)
    operations = workload(program)[0].operations
    export_onnx(program, tmp_path / "model.onnx")
    OnnxRuntimeSession(tmp_path / "model.onnx", optimized_path=tmp_path / "optimized.onnx")
    owners = value_owners(onnx.load(tmp_path / "model.onnx").graph, [each.weight for each in operations])
    optimized = onnx.load(tmp_path / "optimized.onnx").graph
    by_kernel = kernel_owners(optimized, owners)
    layers = {kernel.name: operations[by_kernel[kernel.name]].name for kernel in optimized.node}
    named = [(kernel.op_type, layers[kernel.name]) for kernel in optimized.node]
    weighted = [layer for operator, layer in named if any(kind in operator for kind in ("Conv", "Gemm", "MatMul"))]
    assert sorted(weighted) == sorted(["a", "b", "shortcut", "c", "shared", "shared#2", "head"])
    assert [layer for operator, layer in named if operator in ("MaxPool", "ReduceMean")] == ["c", "c"]
    assert [layer for operator, layer in named if operator == "ReorderOutput"] == ["c"] if width == 32 else True


def test_a_measured_model() -> None:
    program, said = network(), list[str]()
    model = measure_costs(program, CPU, seed=1, budget=VariantBudget(4, 4), progress=said.append)
    assert said[0] == "variant 1" and said[3] == "variant 4" and said[-1] == "timing the layers"
    assert (model.key.target, model.key.threads, model.key.batch) == ("cpu", 1, 1)
    assert model.key.hardware and model.key.engine.startswith("onnxruntime ")
    assert model.source == "measured" and model.error.keys() == {"layers", "network"}
    flow, counts = workload(program)
    dense, thin = (flow.at(kept) for kept in (counts, np.ones_like(counts)))
    assert 0 < model.network_ms(thin) < model.network_ms(dense) < 1000
    layers = model.layer_ms(dense)
    assert (layers >= 0).all() and layers[1:].all() and layers[0] == 0


def test_what_can_not_be_measured_is_refused() -> None:
    with pytest.raises(MissingDependencyError):
        measure_costs(network(), Target.parse("a100"))
    with pytest.raises(UnsupportedModelError, match="Nothing of the network can be pruned"):
        measure_costs(captured(nn.Linear(4, 3), normal(2, 4)), CPU)


def test_a_batch_that_the_network_does_not_run_at_is_refused() -> None:
    fixed = Net(lambda net, x: net.head(net.a(x).relu()), a=nn.Linear(4, 8), head=nn.Linear(8, 2))
    program = capture(fixed.eval(), (torch.randn(2, 4),), dynamic_shapes={})
    with pytest.raises(InputError, match="doesn't run at a batch of 8"):
        measure_costs(program, CPU, batch=8)
