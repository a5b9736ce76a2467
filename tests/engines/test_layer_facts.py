"""What is known about a layer: the builder's word, the loaded engine's, the profiler's times, or the reason why not."""

from dataclasses import replace
from pathlib import Path

import pytest

from prunec.passes.unknown import Unknown
from prunec.runtime.engines.catalogue import load_engine
from prunec.runtime.engines.layer_facts import LayerFacts, layer_facts
from prunec.runtime.engines.measuring import Measurement
from prunec.runtime.engines.protocol import NO_WORD, EngineInfo
from prunec.runtime.engines.sparsity_log import BuilderSparsity
from prunec.runtime.engines.tensorrt import TensorRT
from prunec.runtime.target import Target

SPARSE, DENSE = Target.parse("a100-2:4"), Target.parse("a100")
ENGINE = EngineInfo("tensorrt", Path("engine.plan"), "tensorrt 10", run_on_device=True)
NO_GPU = Unknown("no clocks.")
MEASURED = Measurement(NO_GPU, {"a": 2.0, "b": 1.0}, {"a": 0.5, "b": 0.5}, {"a": True, "b": False}, NO_GPU)


def facts(
    *nodes: str, target: Target = SPARSE, engine: EngineInfo | None = ENGINE, measured: Measurement | None = MEASURED
) -> LayerFacts:
    return layer_facts(TensorRT(), target, engine, measured, nodes)


def test_times_of_all_nodes_of_a_layer_add_up() -> None:
    assert facts("a", "b") == LayerFacts(3.0, 1.0, 3.0, NO_WORD, True)
    assert facts("b") == LayerFacts(1.0, 0.5, 2.0, NO_WORD, False)


@pytest.mark.parametrize("nodes", [("c",), ("a", "c"), ()])
def test_a_layer_that_is_computed_with_others_has_neither_times_nor_kernels_of_its_own(nodes: tuple[str, ...]) -> None:
    layer = facts(*nodes)
    assert isinstance(layer.dense_ms, Unknown)
    assert "together with others" in layer.dense_ms.reason
    assert layer.dense_ms == layer.sparse_ms == layer.gain
    assert isinstance(layer.chosen_by_builder, Unknown)
    assert layer.chosen_by_builder.reason.endswith("doesn't name its kernel either.")


def test_the_builders_word_comes_before_the_loaded_engines() -> None:
    said = replace(ENGINE, sparsity=BuilderSparsity(("a + relu", "b"), ("b",)))
    assert (facts("a", engine=said).found_by_builder, facts("a", engine=said).chosen_by_builder) == (True, False)
    assert (facts("b", engine=said).found_by_builder, facts("b", engine=said).chosen_by_builder) == (True, True)
    assert (facts("c", engine=said).found_by_builder, facts("c", engine=said).chosen_by_builder) == (False, False)


def test_a_dense_target_has_no_sparse_kernels() -> None:
    dense = Unknown("the target is dense.")
    assert facts("a", target=DENSE) == LayerFacts(2.0, dense, dense, dense, dense)


def test_a_time_of_zero_gives_no_gain() -> None:
    layer = facts("a", measured=replace(MEASURED, sparse_ms={"a": 0.0}))
    assert layer.sparse_ms == 0
    assert isinstance(layer.gain, Unknown)


@pytest.mark.parametrize(
    ("name", "target", "engine", "times", "sparse", "found"),
    [
        ("onnxruntime", "cpu", True, "not timed on CPUs", "no sparse kernels", "no sparse kernels"),
        ("onnxruntime", "cpu", False, "not timed on CPUs", "no sparse kernels", "no sparse kernels"),
        ("tensorrt", "h100-2:4", True, "the target device", "the target device", "the builder's log says nothing"),
        ("tensorrt", "h100-2:4", False, "the target device", "the target device", "no engine was built"),
        ("tensorrt_rtx", "l4", False, "the target device", "the target is dense", "the target is dense"),
    ],
)
def test_an_engine_that_was_not_run_says_why(
    name: str, target: str, engine: bool, times: str, sparse: str, found: str
) -> None:
    layer = layer_facts(load_engine(name), Target.parse(target), ENGINE if engine else None, None, ["a"])
    for value, words in (
        (layer.dense_ms, times),
        (layer.sparse_ms, sparse),
        (layer.gain, sparse),
        (layer.found_by_builder, found),
        (layer.chosen_by_builder, found),
    ):
        assert isinstance(value, Unknown)
        assert words in value.reason
