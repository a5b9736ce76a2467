"""Cost models by engines that tell their layers' times themselves, with a fake of TensorRT: nothing here saw a GPU."""

import numpy as np
import pytest

from prunec.passes.errors import UsageError
from prunec.runtime.costs.measuring import measure_costs
from prunec.runtime.costs.variants import VariantBudget
from prunec.runtime.target import Target
from tests.engines.device import GPU, pretend_device
from tests.engines.fake_tensorrt import FakeRunner
from tests.passes.costs.synthetic import workload
from tests.runtime.costs.test_measuring import network

H100 = Target.parse("h100-2:4")


def test_a_model_measured_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weighted node of a sparse engine takes 1 ms, and the whole inference too."""
    pretend_device(monkeypatch)
    program = network()
    model = measure_costs(program, H100, budget=VariantBudget(5, 5))
    assert (model.key.target, model.key.hardware) == (str(H100), GPU)
    assert (model.key.threads, model.key.batch) == (None, 1)
    assert model.key.engine.startswith("tensorrt ")
    flow, counts = workload(program)
    assert (model.key.dims, model.two_four_gain) == ("batch=1:8:32" * program.batch_is_dynamic, pytest.approx(1.0))
    for kept in (counts, np.maximum(counts // 2, 1)):
        layers = model.layer_ms(flow.at(kept))
        np.testing.assert_allclose(layers[1:], 1.0, rtol=0.02)
        assert layers[0] == 0
        assert model.network_ms(flow.at(kept)) == pytest.approx(1.0, rel=0.02)
    assert model.untimed == ()


def test_an_engine_that_does_not_tell_its_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_device(monkeypatch)
    monkeypatch.setattr(FakeRunner, "get_engine_information", lambda *_: '{"Layers": []}')
    with pytest.raises(UsageError, match="can't measure a cost model"):
        measure_costs(network(), H100, budget=VariantBudget(2, 2))
