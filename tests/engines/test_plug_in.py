"""An engine of another package: found by its name or its device, built, compared, and timed by its own timer."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from examples.plugins.prunec_examples.engine import ReferenceEngine
from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.passes.outputs import OutputForm
from prunec.passes.unknown import Unknown
from prunec.runtime.devices import DEVICES
from prunec.runtime.engines import EngineKind, EngineOptions, SizeRange, choose_engine
from prunec.runtime.engines.catalogue import preferred_engine
from prunec.runtime.engines.layer_facts import layer_facts
from prunec.runtime.engines.measuring import MeasureSettings, compare_with_torch, measure
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.evaluate import predictor
from prunec.runtime.latency import LatencyComparison
from prunec.runtime.numerics import random_inputs
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_sparsity import check_sparsity
from prunec.runtime.processor import processor
from prunec.runtime.target import Target, known_devices
from tests.plugins.install import installed
from tests.runtime.nets import small

PLUG_IN = "examples.plugins.prunec_examples.engine:ReferenceEngine"


@pytest.fixture
def plug_in(tmp_path: Path) -> Iterator[None]:
    with installed(tmp_path / "site", ENGINES.group, reference=PLUG_IN):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    export_onnx(small(), path)
    return path


@pytest.mark.parametrize(("target", "asked"), [("cpu", "reference"), ("referencecpu", "")])
@pytest.mark.usefixtures("plug_in")
def test_it_builds_compares_and_times_by_itself(target: str, asked: str, model: Path, tmp_path: Path) -> None:
    parsed, options, program = Target.parse(target), EngineOptions(engine=asked), small()
    kind = choose_engine(parsed, options)
    assert isinstance(kind, ReferenceEngine)
    kind.check(parsed, options, latency_batch=1)
    engine = kind.build(parsed, model, tmp_path, options)
    assert (engine.kind, engine.path.name, engine.built_ahead_of_time) == ("reference", "engine.reference", False)
    assert compare_with_torch(kind, engine, program) < kind.tolerance(parsed.precision)
    inputs = random_inputs(program, 2, seed=0)
    measured = measure(kind, parsed, engine, model, inputs, dense_onnx=model, settings=MeasureSettings(runs=3))
    assert isinstance(measured.latency, LatencyComparison)
    # A second for each weight: nothing that another engine measures comes near.
    weights = sum(np.prod(layer.shape) for layer in check_sparsity(model))
    assert measured.latency.compiled.median == measured.latency.dense.median >= 1000 * weights
    with kind.open(engine) as session:
        outputs = predictor(session, program.inputs, OutputForm.of(program.graph))(program.example_inputs[0])
        assert outputs[0].shape == (2, 10)


@pytest.mark.usefixtures("plug_in")
def test_what_it_does_not_tell_has_a_reason(model: Path, tmp_path: Path) -> None:
    target, kind = Target.parse("referencecpu"), ReferenceEngine()
    engine = kind.build(target, model, tmp_path, EngineOptions())
    assert kind.hardware() == processor()
    assert kind.why_not_run(target).endswith(f"can't run engines for {target.info.title} on this machine.")
    unmeasured = layer_facts(kind, target, engine, None, ["node"])
    assert unmeasured.dense_ms == Unknown("the engine was not run.")
    assert unmeasured.gain == unmeasured.chosen_by_builder == Unknown("the target is dense.")
    measured = measure(kind, target, engine, model, random_inputs(small(), 2, 0))
    assert measured.gpu == Unknown("nothing was measured on a GPU.")
    facts = layer_facts(kind, target, engine, measured, ["node"])
    assert facts.dense_ms == Unknown("the engine doesn't tell the times of its layers.")


@pytest.mark.usefixtures("plug_in")
def test_its_device_is_a_target_like_others() -> None:
    assert str(Target.parse("referencecpu")) == "referencecpu-dense-fp32"
    assert Target.parse(str(Target.parse("referencecpu"))) == Target.parse("referencecpu")
    assert Target.parse("referencecpu").channel_multiple == 16
    assert list(known_devices().devices) == [*DEVICES, "referencecpu"]
    assert known_devices().problems == ()
    with pytest.raises(UsageError, match="Did you mean 'referencecpu'"):
        Target.parse("referencecpus")
    with pytest.raises(UsageError, match="has no bf16"):
        Target.parse("referencecpu-bf16")


@pytest.mark.usefixtures("plug_in")
def test_options_that_it_has_no_use_for_are_refused() -> None:
    options = EngineOptions({"batch": SizeRange(1, 1, 1)}, also_for=("l4",), engine="reference")
    with pytest.raises(UsageError, match="the reference evaluator of ONNX takes no --dims, --also-for"):
        preferred_engine(Target.parse("cpu"), options).check(Target.parse("cpu"), options, 1)


def test_without_the_package_its_device_and_its_engine_are_unknown() -> None:
    with pytest.raises(UsageError, match="Unknown device 'referencecpu'"):
        Target.parse("referencecpu")
    with pytest.raises(UsageError, match="There is no engine 'reference'"):
        choose_engine(Target.parse("cpu"), EngineOptions(engine="reference"))


@pytest.mark.parametrize("asked", ["onnxruntime", "reference"])
@pytest.mark.usefixtures("plug_in")
def test_an_engine_that_does_not_serve_the_target_is_refused(asked: str) -> None:
    with pytest.raises(UsageError, match="builds no engine for l4-2:4-fp16") as caught:
        choose_engine(Target.parse("l4-2:4"), EngineOptions(engine=asked))
    assert "tensorrt, tensorrt_rtx" in str(caught.value)


class Unfinished(EngineKind):
    name = "unfinished"
    title = "Unfinished"


class Untitled(EngineKind):
    name = "untitled"
    build = ReferenceEngine.build
    open = ReferenceEngine.open


class Imitation(ReferenceEngine):
    name = "imitation"
    devices = (DEVICES["cpu"],)


class Odd:
    name = "odd"
    devices = ("odd",)


@pytest.mark.parametrize(
    ("name", "location", "words"),
    [
        ("number", "math:pi", "expected a subclass of prunec.runtime.engines.protocol.EngineKind"),
        ("unfinished", f"{__name__}:Unfinished", "all its abstract methods"),
        ("untitled", f"{__name__}:Untitled", "with a name, a title"),
    ],
)
def test_what_is_no_engine_is_refused_when_it_is_asked_for(
    name: str, location: str, words: str, tmp_path: Path
) -> None:
    with installed(tmp_path, ENGINES.group, **{name: location}):
        with pytest.raises(MissingDependencyError, match=words.replace(".", r"\.")):
            choose_engine(Target.parse("cpu"), EngineOptions(engine=name))
        assert choose_engine(Target.parse("cpu"), EngineOptions()).name == "onnxruntime"


@pytest.mark.parametrize(
    ("name", "location", "words"),
    [
        ("missing", "no_such_module:Engine", "can't be imported from no_such_module:Engine"),
        ("imitation", f"{__name__}:Imitation", "device 'cpu' of the engine 'imitation' is left out"),
        ("odd", f"{__name__}:Odd", "brings 'odd'; expected a Device"),
    ],
)
def test_devices_that_cannot_be_used_are_told_and_cost_no_others(
    name: str, location: str, words: str, tmp_path: Path
) -> None:
    with installed(tmp_path, ENGINES.group, **{name: location, "reference": PLUG_IN}):
        assert Target.parse("referencecpu").info.engines == ("reference",)
        assert list(known_devices().devices) == [*DEVICES, "referencecpu"]
        (problem,) = known_devices().problems
        assert words in problem
        with pytest.raises(UsageError, match="Unknown device 'b100'") as unknown:
            Target.parse("b100")
        assert problem in str(unknown.value)
