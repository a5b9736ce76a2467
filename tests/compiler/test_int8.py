"""Compiles for INT8: from the step that calibrates to what verify finds of a bundle that was changed."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.calibration.splits import SampleSplit
from prunec.compiler.bundle.bundle_reader import bundle_program, intact_bundle
from prunec.compiler.commands.verify_bundle import verify_bundle
from prunec.compiler.commands.verify_network import network_claims
from prunec.compiler.facts.settings import Settings
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import summary_rows
from prunec.compiler.stages.driver import compile_model
from prunec.passes import Program, capture
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.identity import architecture_sha256, weights_sha256
from prunec.passes.quantization.grids import Range
from prunec.passes.quantization.made_up_ranges import quantized_untrained
from prunec.passes.quantization.placement import place
from prunec.passes.quantization.quantizers import quantize, quantizers, without_quantizers
from prunec.passes.two_four import is_two_four
from prunec.passes.unknown import Unknown, known
from prunec.runtime.engines.building import build_engine
from prunec.runtime.engines.catalogue import load_engine
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.onnx_sparsity import check_sparsity
from prunec.runtime.target import Target
from tests.compiler.test_verify_bundle import at, in_report, seal

FAST = Settings(latency_runs=5)
Edit = Callable[[Path], object]


class Residual(nn.Module):
    """Two convolutions with batch norms around a sum, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = torch.relu(y + self.body(y))
        return self.head(nn.functional.adaptive_avg_pool2d(y, 2).flatten(1))


def quadrants(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey images of 8x8 whose class is the bright quadrant."""
    labels, images = rng.integers(0, 4, count), rng.integers(0, 60, (count, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[4 * (label // 2) :][:4, 4 * (label % 2) :][:, :4] += 120
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (train, train_labels), (test, test_labels) = quadrants(rng, 300), quadrants(rng, 100)
    arrays = {"train_images": train, "train_labels": train_labels, "test_images": test, "test_labels": test_labels}
    np.savez(folder / "data.npz", **arrays)
    return load_data(DataConfig(train="npz:data.npz", test="npz:data.npz", augment=("flip",)), folder, seed=0)


@pytest.fixture(scope="module")
def program(data: Data) -> Program:
    """A trained network: it tells the quadrants apart."""
    torch.manual_seed(0)
    network = Residual()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(4):
        for inputs, labels in data.train.batches(30, epoch=epoch):
            assert isinstance(inputs, Tensor)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs), labels).backward()
            optimizer.step()
    return capture(network.eval(), (torch.randn(2, 1, 8, 8),))


@pytest.fixture(scope="module")
def on_cpu(program: Program, data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    output = tmp_path_factory.mktemp("cpu") / "net.bundle"
    pipeline = "prune-filters{ratio=0.25,round_to=4} recover{epochs=1,schedule=constant:0.02,batch_size=32} calibrate"
    return compile_model(program, "cpu-int8", pipeline, data, output, settings=FAST), output


@pytest.fixture(scope="module")
def sparse(program: Program, data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    output = tmp_path_factory.mktemp("l4") / "net.bundle"
    settings, pipeline = replace(FAST, build_engine=False), "permute{seconds=1} sparsify calibrate{samples=64}"
    return compile_model(program, "l4-2:4-int8", pipeline, data, output, settings=settings), output


@pytest.fixture(scope="module")
def float8(program: Program, data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    output = tmp_path_factory.mktemp("fp8") / "net.bundle"
    settings, pipeline = replace(FAST, build_engine=False), "sparsify calibrate{samples=64,rounding=corrected}"
    return compile_model(program, "l4-2:4-fp8", pipeline, data, output, settings=settings), output


def checks_of(folder: Path) -> dict[str, tuple[str, str]]:
    result = verify_bundle(folder, source=None, config=None, model=ModelOptions())
    return {check.name: (check.verdict, check.detail) for check in result.checks}


def failed(folder: Path) -> dict[str, str]:
    return {name: detail for name, (verdict, detail) in checks_of(folder).items() if verdict == "failed"}


def test_the_accuracy_of_int8_is_measured_and_stays(on_cpu: tuple[Report, Path]) -> None:
    accuracy = on_cpu[0].accuracy
    stages = [known(getattr(accuracy, stage)) for stage in ("recovered", "quantized", "exported", "engine")]
    assert None not in stages
    assert stages[1] == pytest.approx(stages[0], abs=0.02)
    assert stages[3] == stages[2] == pytest.approx(stages[1], abs=0.02)
    assert on_cpu[0].passed


def test_the_report_tells_images_and_what_every_layer_computes_in(on_cpu: tuple[Report, Path]) -> None:
    part = known(on_cpu[0].calibration)
    assert part is not None
    assert (part.method, part.images, part.layers_in_higher_precision, part.higher_precision_macs) == ("mse", 256, 0, 0)
    assert [(layer.layer, layer.precision) for layer in part.layers] == [
        ("stem.0", "int8"),
        ("body.0", "int8"),
        ("head", "int8"),
    ]
    (entry,) = [entry for entry in known(on_cpu[0].ledger) or () if entry.stage == "calibrate"]
    assert (entry.samples, entry.removed, entry.split) == (256, False, "training data")


def test_the_page_and_the_summary_show_it(on_cpu: tuple[Report, Path], sparse: tuple[Report, Path]) -> None:
    report, folder = on_cpu
    page = (folder / "report.html").read_text()
    assert "What computes in which precision" in page
    rows = dict(summary_rows(report))
    assert (rows["INT8"], rows["Ranges"]) == ("3 of 3 layers", "mse over 256 training images")
    assert rows["Engine against fp32"].startswith("output ")
    by_output = known(report.numerics.engine_vs_fp32_relative_error)
    assert by_output is not None
    assert 1e-4 < by_output["output"] < 0.2
    assert isinstance(sparse[0].numerics.engine_vs_fp32_relative_error, Unknown), "it can't run here"


def test_the_files_hold_whole_numbers(on_cpu: tuple[Report, Path], sparse: tuple[Report, Path]) -> None:
    for folder, name, of_activations in (
        (on_cpu[1], "model.onnx", TensorProto.UINT8),
        (sparse[1], "model.int8.onnx", TensorProto.INT8),
    ):
        graph = onnx.load(folder / name).graph
        weights = {tensor.name: tensor.data_type for tensor in graph.initializer if tensor.name.endswith(".weight")}
        assert weights == dict.fromkeys(("stem.0.weight", "body.0.weight", "head.weight"), TensorProto.INT8)
        stored = {tensor.name: tensor for tensor in graph.initializer}
        quantized = [node for node in graph.node if node.op_type == "QuantizeLinear"]
        assert {stored[node.input[2]].data_type for node in quantized} == {of_activations}
        assert {tensor.name for tensor in graph.initializer if tensor.name.endswith(".bias")}, "no bias on a grid"


def test_what_is_beside_int8_has_16_bits_for_nvidia(sparse: tuple[Report, Path]) -> None:
    path = sparse[1] / "model.int8.onnx"
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    scales = {node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert {types[name] for name in scales} == {TensorProto.FLOAT16}
    assert {types[name] for name in types if name.endswith(".bias")} == {TensorProto.FLOAT16}
    zero_points = [node.input[2] for node in model.graph.node if "Linear" in node.op_type]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert not any(stored[name].any() for name in zero_points)


def test_fp8_is_measured_stored_and_told(float8: tuple[Report, Path]) -> None:
    report, folder = float8
    part, rows = known(report.calibration), dict(summary_rows(report))
    assert part is not None
    assert [(layer.layer, layer.precision) for layer in part.layers] == [
        (name, "fp8") for name in ("stem.0", "body.0", "head")
    ]
    assert rows["FP8"] == "3 of 3 layers"
    dense, quantized, exported = (known(getattr(report.accuracy, name)) for name in ("dense", "quantized", "exported"))
    assert None not in (dense, quantized, exported)
    assert quantized == pytest.approx(exported, abs=0.02)
    steps = known(report.steps)
    assert steps is not None
    assert known(steps[-1].aim) is not None
    for name, scale in (("model.onnx", TensorProto.FLOAT), ("model.fp8.onnx", TensorProto.FLOAT16)):
        onnx.checker.check_model(folder / name, full_check=True)
        graph = onnx.load(folder / name).graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        weights = {name: kind for name, kind in types.items() if name.endswith(".weight")}
        assert set(weights.values()) == {TensorProto.FLOAT8E4M3FN}
        scales = {node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"}
        assert {types[name] for name in scales} == {scale}
    assert {entry.layer for entry in check_sparsity(folder / "model.fp8.onnx") if entry.valid} == {"body.0", "head"}
    assert {entry.dtype for entry in check_sparsity(folder / "model.fp8.onnx")} == {"float8_e4m3fn"}


def test_one_number_of_fp8_that_is_off_is_found(float8: tuple[Report, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(float8[1], tmp_path / "b")
    model = onnx.load(folder / "model.fp8.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "body.0.weight")
    values = np.frombuffer(weight.raw_data, np.uint8).copy()
    place = int(np.flatnonzero(values)[0])
    values[place] ^= 1
    weight.raw_data = values.tobytes()
    onnx.save(model, folder / "model.fp8.onnx")
    seal(folder)
    assert "ONNX weights" in failed(folder)


def test_learned_rounding_is_for_whole_numbers(program: Program, data: Data, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="learned rounding"):
        compile_model(program, "l4-fp8", "calibrate{rounding=learned}", data, tmp_path / "b", settings=FAST)
    with pytest.raises(UsageError, match="entropy"):
        compile_model(program, "l4-fp8", "calibrate{method=entropy}", data, tmp_path / "b", settings=FAST)


def test_two_four_outlives_folding_and_rounding(sparse: tuple[Report, Path]) -> None:
    report, folder = sparse
    assert {entry.layer for entry in check_sparsity(folder / "model.int8.onnx") if entry.valid} == {"body.0", "head"}
    assert {layer.name for layer in report.layers if (s := known(layer.sparsity)) and s.valid} == {"body.0", "head"}
    saved = Program.load(folder / "model.pt2")
    assert all(is_two_four(saved.parameters()[name]) for name in saved.masks)


def test_sparse_layers_are_predicted_in_int8(sparse: tuple[Report, Path]) -> None:
    steps = known(sparse[0].steps)
    assert steps is not None
    dense, calibrated = (known(step.predicted_ms) for step in (steps[0], steps[-1]))
    assert dense is not None
    assert calibrated is not None
    assert calibrated < dense
    assert all(known(layer.predicted_ms) is not None for layer in sparse[0].layers)


@pytest.mark.parametrize("name", ["on_cpu", "sparse", "float8"])
def test_verify_passes(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)[1]
    assert failed(folder) == {}
    assert "numbers of grids within half a step" in checks_of(folder)["ONNX weights"][1]


@pytest.mark.parametrize("name", ["on_cpu", "sparse", "float8"])
def test_dense_macs_are_checked_without_the_dense_network(name: str, request: pytest.FixtureRequest) -> None:
    report, folder = request.getfixturevalue(name)
    claims = {claim.path: claim for claim in network_claims(intact_bundle(folder), bundle_program(folder))}
    assert claims["macs.dense"].computed == report.macs.dense
    assert "parameters.dense" in checks_of(folder)["report against the program"][1]
    assert "macs.dense" not in checks_of(folder)["report against the program"][1]


def in_graph(change: Callable[[onnx.GraphProto], object]) -> Edit:
    def edit(folder: Path) -> None:
        model = onnx.load(folder / "model.onnx")
        change(model.graph)
        onnx.save(model, folder / "model.onnx")

    return edit


def one_step_off(graph: onnx.GraphProto) -> None:
    weight = next(tensor for tensor in graph.initializer if tensor.name == "body.0.weight")
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] += 1 if values.flat[0] < 127 else -1
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def another_scale(graph: onnx.GraphProto) -> None:
    name = next(node.input[1] for node in graph.node if node.op_type == "QuantizeLinear")
    scale = next(tensor for tensor in graph.initializer if tensor.name == name)
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(1.5), scale.name))


def another_grid(folder: Path) -> None:
    """Widen the grid of an activation in model.pt2: no tensor of the archive changes."""
    saved = bundle_program(folder)
    node = next(quantizer.node for quantizer in quantizers(saved.graph) if quantizer.grid is not None)
    node.args = (node.args[0], float(node.args[1]) * 1.5, *node.args[2:])
    saved.with_tensors(saved.tensors(), saved.graph).save(folder / "model.pt2")


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (at("calibration.layers.1.precision", "fp32"), "report against the program"),
        (at("calibration.images", 3), "report against the program"),
        (at("calibration.method", "entropy"), "report against the program"),
        (at("calibration.smoothing", 0.5), "report against the program"),
        (at("calibration.layers_in_higher_precision", 1), "report against the program"),
        (at("accuracy.quantized", 0.5), "report against the program"),
        (in_graph(one_step_off), "ONNX weights"),
        (in_graph(another_scale), "ONNX weights"),
        (another_grid, "ONNX weights"),
    ],
)
def test_what_is_not_so_is_found(on_cpu: tuple[Report, Path], tmp_path: Path, edit: Edit, check: str) -> None:
    folder = shutil.copytree(on_cpu[1], tmp_path / "b")
    edit(folder)
    seal(folder)
    assert check in failed(folder)


def test_a_calibration_that_is_not_told_is_missed(on_cpu: tuple[Report, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(on_cpu[1], tmp_path / "b")

    def untold(report: dict[str, object]) -> None:
        report["calibration"] = None
        reasons = report["reasons"]
        assert isinstance(reasons, dict)
        reasons["calibration"] = "the pipeline has no step calibrate."

    in_report(untold)(folder)
    seal(folder)
    assert "calibration is told" in failed(folder)["report against the program"]


def test_grids_of_activations_are_part_of_the_fingerprint_and_not_of_the_architecture(program: Program) -> None:
    placement = place(program)
    first, second = (
        quantize(
            program, placement, dict.fromkeys((site.family for site in placement.sites), Range(-1, high)), "affine"
        )
        for high in (1.0, 2.0)
    )
    assert weights_sha256(first) != weights_sha256(second) != weights_sha256(without_quantizers(second))
    assert architecture_sha256(first) == architecture_sha256(second) != architecture_sha256(program)


def test_made_up_ranges_give_the_operators_of_calibrated_ones(on_cpu: tuple[Report, Path]) -> None:
    """So that what is timed before any calibration takes the time of what comes of it."""
    saved = bundle_program(on_cpu[1])
    again = quantized_untrained(without_quantizers(saved), "affine")
    assert architecture_sha256(again) == architecture_sha256(saved)


def test_layers_are_kept_by_name(program: Program, data: Data, tmp_path: Path) -> None:
    settings = replace(FAST, build_engine=False)
    report = compile_model(program, "a100-int8", "calibrate{keep=[head]}", data, tmp_path / "b", settings=settings)
    part = known(report.calibration)
    assert part is not None
    assert [(each.layer, each.precision, each.reason) for each in part.layers][-1] == ("head", "fp16", "kept by name")
    assert (part.layers_in_higher_precision, part.higher_precision_macs) == (
        1,
        pytest.approx(256 / report.macs.compiled),
    )
    assert failed(tmp_path / "b") == {}


def test_images_are_not_augmented_and_the_hash_is_theirs(program: Program, data: Data, tmp_path: Path) -> None:
    assert isinstance(data.train, SampleSplit)
    assert data.train.augmentations
    plain = replace(data.train, augmentations=())
    seen = torch.cat([inputs for inputs, _ in plain.batches(32, epoch=0, seed=0) if isinstance(inputs, Tensor)])
    for samples in (32, 41):
        output, pipeline = tmp_path / f"{samples}", f"calibrate{{samples={samples}}}"
        report = compile_model(program, "l4-int8", pipeline, data, output, settings=replace(FAST, build_engine=False))
        part = known(report.calibration)
        assert part is not None
        assert (part.images, part.sha256) == (samples, hashlib.sha256(seen[:samples].numpy().tobytes()).hexdigest())


def test_a_norm_that_multiplies_by_zero_removes_nothing(program: Program, data: Data, tmp_path: Path) -> None:
    silent = program.clone()
    with torch.no_grad():
        silent.parameters()["body.1.weight"][0] = 0
    settings = replace(FAST, build_engine=False)
    report = compile_model(silent, "l4-int8", "calibrate{samples=32}", data, tmp_path / "b", settings=settings)
    assert [entry.removed for entry in known(report.ledger) or ()] == [False, False]


def test_few_images_are_told(program: Program, data: Data, tmp_path: Path) -> None:
    settings = replace(FAST, build_engine=False)
    few = replace(data, train=replace(data.train, positions=data.train.positions[:5]))  # type: ignore[type-var]
    report = compile_model(program, "l4-int8", "calibrate", few, tmp_path / "b", settings=settings)
    steps = known(report.steps)
    assert steps is not None
    assert steps[-1].note is not None
    assert "5 images" in steps[-1].note


def test_activations_that_are_not_finite_are_refused(program: Program, data: Data, tmp_path: Path) -> None:
    broken = program.clone()
    with torch.no_grad():
        broken.parameters()["body.0.weight"][0] = float("inf")
    with pytest.raises(NumericMismatchError, match="finite"):
        compile_model(broken, "l4-int8", "calibrate", data, tmp_path / "b", settings=FAST)
    assert not (tmp_path / "b").exists()


def test_a_network_without_int8_layers_fails_with_the_reason(data: Data, tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(8, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.rnn(x[:, 0])[0]
            return out.mean(1)

    torch.manual_seed(0)
    recurrent = capture(Recurrent().eval(), (torch.randn(2, 1, 8, 8),))
    settings = replace(FAST, build_engine=False, allow_implausible=True)
    report = compile_model(recurrent, "l4-int8", "calibrate", data, tmp_path / "b", settings=settings)
    assert (report.exit_code, report.status) == (7, "FAILED")
    steps = known(report.steps)
    assert steps is not None
    aim = steps[-1].aim
    assert aim is not None
    assert not isinstance(aim, Unknown)
    assert (aim.got, aim.reason) == (0, "no 8-bit kernel")
    assert isinstance(report.calibration, Unknown)


@pytest.mark.parametrize("option", ["keep=[*]", "keep_macs=1"])
def test_a_calibration_that_holds_every_layer_back_is_not_done(
    program: Program, data: Data, tmp_path: Path, option: str
) -> None:
    output, pipeline = tmp_path / "b", f"calibrate{{samples=32,{option}}}"
    settings = replace(FAST, build_engine=False)
    report = compile_model(program, "cpu-int8", pipeline, data, output, settings=settings)
    steps = known(report.steps)
    assert steps is not None
    aim, note = steps[-1].aim, steps[-1].note
    assert aim is not None
    assert not isinstance(aim, Unknown)
    assert (report.exit_code, aim.asked, aim.got) == (7, 3, 0)
    assert note is not None
    assert "No layer is in INT8" in note
    if option.startswith("keep="):
        assert "keep=[*] holds 3 of 3 layers back" in note
        assert report.calibration == Unknown("calibrate put no layer on a grid: kept by name.")
    assert set(failed(output)) == {"outcome"}, "it tells what it is: a compile that failed"
    settings = replace(settings, allow_noop=True)
    assert compile_model(program, "cpu-int8", pipeline, data, tmp_path / "c", settings=settings).exit_code == 0
    assert failed(tmp_path / "c") == {}


def test_what_equalization_and_rounding_bring_is_told_and_booked(data: Data, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
    network = nn.Sequential(
        first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4)
    )
    program = capture(network.eval(), (torch.randn(2, 1, 8, 8),))
    settings = replace(FAST, build_engine=False)
    pipeline = "calibrate{samples=96,equalize=true,smooth=0.5,rounding=learned}"
    report = compile_model(program, "cpu-int8", pipeline, data, tmp_path / "b", settings=settings)
    part, steps = known(report.calibration), known(report.steps)
    assert part is not None
    assert steps is not None
    assert set(part.output_errors) == {"unchanged channels", "nearest", "learned"}
    factor = known(part.largest_factor)
    assert factor is not None
    assert 1 <= factor <= 256
    assert part.smoothing is None
    assert "smooth did nothing" in str(steps[-1].note)
    assert "weights were rounded by" not in str(steps[-1].note), "there are 32 others"
    assert dict(summary_rows(report))["Weights"].startswith(
        f"channels equalized by up to {factor:.3g}, rounding learned"
    )
    beside = {entry.stage: entry for entry in known(report.ledger) or () if entry.weights_out is None}
    assert beside["calibration-settings"].samples == 96, "once more with unchanged channels"
    assert beside["weight-rounding"].samples == 64 + 4 * 32
    macs = known(beside["weight-rounding"].macs_per_sample)
    assert macs is not None
    assert macs.forward > report.macs.compiled
    assert macs.backward > 0
    assert failed(tmp_path / "b") == {}


class Tokens(nn.Module):
    """Two convolutions, their pixels as tokens, a layer norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.pixels(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(tokens)).mean(1)


def test_what_equalization_brings_is_told_apart_from_what_smoothing_brings(data: Data, tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = capture(Tokens().eval(), (torch.randn(2, 1, 8, 8),))
    with torch.no_grad():
        program.parameters()["pixels.0.weight"][0] *= 30
        program.parameters()["norm.weight"][3] *= 30
    settings = replace(FAST, build_engine=False)
    errors, notes = {}, {}
    for name, options in {"both": "equalize=true,smooth=0.5", "equalized": "equalize=true"}.items():
        pipeline = f"calibrate{{method=mse,samples=96,{options}}}"
        report = compile_model(program, "cpu-int8", pipeline, data, tmp_path / name, settings=settings)
        part = known(report.calibration)
        assert part is not None
        errors[name] = part.output_errors
        notes[name] = str((known(report.steps) or ())[-1].note)
        assert failed(tmp_path / name) == {}
    both, equalized = errors["both"], errors["equalized"]
    assert set(both) == {"unchanged channels", "equalized channels", "nearest"}
    assert both["unchanged channels"] == pytest.approx(equalized["unchanged channels"], rel=1e-3)
    assert both["equalized channels"] == pytest.approx(equalized["nearest"], rel=1e-3)
    assert both["unchanged channels"] < both["nearest"] < both["equalized channels"], "scaled by hand to be so"
    assert "equalize raised the error of the outputs" in notes["equalized"]
    assert "equalize and smooth raised the error of the outputs" in notes["both"], "smoothing alone wasn't tried"


def test_a_control_arm_tells_what_training_on_grids_brings(program: Program, data: Data, tmp_path: Path) -> None:
    """The arm is the same run but for the hook, and that to the bit."""
    recover = "recover{epochs=1,schedule=constant:0.02,batch_size=32%s} calibrate{samples=64}"
    settings = replace(FAST, build_engine=False)
    with_arm = replace(settings, controls=("off-grids",))
    on_grids, off_grids = (recover % ',hooks="quantize{form=affine}"', recover % "")
    report = compile_model(program, "cpu-int8", on_grids, data, tmp_path / "a", settings=with_arm)
    other = compile_model(program, "cpu-int8", off_grids, data, tmp_path / "b", settings=settings)
    (arm,) = report.controls
    assert (arm.name, arm.epochs, arm.macs) == ("off-grids", 1, report.macs.compiled)
    assert arm.accuracy == other.accuracy.quantized
    weights = {entry.run: entry.weights_out for entry in known(report.ledger) or () if entry.stage == "recover"}
    ended = [entry.weights_out for entry in known(other.ledger) or () if entry.stage == "recover"]
    assert weights["off-grids"] == ended[-1] != weights[""]
    assert failed(tmp_path / "a") == {}
    assert "Control off-grids" in dict(summary_rows(report))


def test_the_arm_off_grids_needs_a_training_on_them(program: Program, data: Data, tmp_path: Path) -> None:
    settings = replace(FAST, controls=("off-grids",))
    with pytest.raises(UsageError, match="no training has it"):
        compile_model(program, "cpu-int8", "recover{epochs=1} calibrate", data, tmp_path / "b", settings=settings)


def test_int8_needs_data(program: Program, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="inputs of the training data"):
        compile_model(program, "cpu-int8", "calibrate", None, tmp_path / "b", settings=FAST)


def test_the_network_to_come_is_tried_before_a_training(on_cpu: tuple[Report, Path]) -> None:
    steps = known(on_cpu[0].steps)
    assert steps is not None
    (preflight,) = [step.preflight for step in steps if step.preflight is not None]
    assert not isinstance(preflight, Unknown)
    assert (known(preflight.difference_from_torch) or 0) < 1e-4
    assert str(preflight.parsed_by).startswith("onnxruntime")


@pytest.mark.parametrize("target", ["a100-2:4-int8", "l4-2:4-int8", "t4-int8"])
def test_tensorrt_rtx_builds_it(sparse: tuple[Report, Path], tmp_path: Path, target: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    kind, model = load_engine("tensorrt_rtx"), sparse[1] / "model.int8.onnx"
    assert build_engine(kind, Target.parse(target), model, tmp_path, EngineOptions()).path.stat().st_size > 0
