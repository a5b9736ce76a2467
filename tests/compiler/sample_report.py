"""A realistic report: a small ResNet for Fashion-MNIST compiled for an A100 on a machine without one."""

import math
from typing import Any

from prunec.compiler.gates.gate import Gate
from prunec.compiler.gates.own_gates import EngineBuilt, MaxDropPoints, MaxOnnxVsTorch
from prunec.compiler.report.engine_parts import (
    EnginePart,
    EngineRequestPart,
    EnvironmentPart,
    GatePart,
    LatencyPart,
    PercentilesPart,
)
from prunec.compiler.report.network_parts import (
    LayerPart,
    LayerSparsityPart,
    MacsPart,
    ModelPart,
    NumericsPart,
    OraclePart,
    ParametersPart,
    PermutationPart,
    PruningGroupPart,
    PruningPart,
    SizeBytesPart,
    StepPart,
)
from prunec.compiler.report.report import Report
from prunec.compiler.report.training_parts import (
    AccuracyPart,
    CurvePointPart,
    DataPart,
    DistillationPart,
    PretrainingPart,
    RecoveryPart,
    RunPart,
    RunsSummaryPart,
)
from prunec.passes.unknown import Unknown

NO_GPU = "needs an NVIDIA A100; this machine has no NVIDIA GPU."
AWAY = Unknown(NO_GPU)
UNTRIED = Unknown("an ahead-of-time TensorRT-RTX build does not look for 2:4.")
_UNCHANGED = Unknown("the step leaves the network's function as it was.")
_EXACT = 3.1e-15
_CONSTANT = Unknown("the cosine schedule has no constant-rate stage.")
_UNTOLD = Unknown("the checkpoint carries no training log.")
RTX_NOTES = (
    "Built ahead of time by TensorRT-RTX on the CPU; TensorRT itself cannot load it.",
    "Kernels are chosen on the device at first load: whether sparse ones are used is unknown until then.",
    "The A100 is not in the vendor's TensorRT-RTX support matrix.",
)
EPOCHS = 20


def _layer(name: str, shape: tuple[int, ...], compiled: tuple[int, ...], reason: str = "") -> LayerPart:
    eligible = reason == ""
    return LayerPart(
        name=name,
        operator="linear" if len(shape) == 2 else "conv2d",
        shape=shape,
        compiled_shape=compiled,
        kept=compiled[0],
        sparsity=LayerSparsityPart(
            eligible=eligible,
            valid=eligible,
            reason=reason,
            retained_magnitude=0.7447 if eligible else None,
            retained_unpermuted=0.7401 if eligible else None,
            permutation_gain=0.0046 if eligible else None,
            efficacy=0.31 if eligible else None,
            likely_to_gain=eligible and shape[0] >= 256,
            gain_rule="C 256 and K 256 are at least 256" if eligible else "",
            found_by_builder=Unknown("an ahead-of-time TensorRT-RTX build does not look for 2:4.")
            if eligible
            else None,
            chosen_by_builder=AWAY if eligible else None,
        ),
        dense_ms=round(0.0004 * math.prod(shape) ** 0.5, 5),
        sparse_ms=AWAY,
        gain=AWAY,
        predicted_dense_ms=1e-8 * math.prod(compiled),
        predicted_ms=0.6e-8 * math.prod(compiled) if eligible else 1e-8 * math.prod(compiled),
        predicted_bound="memory",
        onnx_nodes=(f"node_{name}",),
    )


def layers() -> tuple[LayerPart, ...]:
    found = [_layer("stem", (16, 1, 3, 3), (16, 1, 3, 3), "1 input channel: not a multiple of 4")]
    inputs, kept_inputs = 16, 16
    for stage, (width, stream, inner) in enumerate(((16, 16, 8), (32, 24, 16), (64, 48, 32)), start=1):
        for block in range(2):
            name = f"stage{stage}.{block}"
            found.append(_layer(f"{name}.conv1", (width, inputs, 3, 3), (inner, kept_inputs, 3, 3)))
            found.append(_layer(f"{name}.conv2", (width, width, 3, 3), (stream, inner, 3, 3)))
            if inputs != width:
                found.append(_layer(f"{name}.shortcut", (width, inputs, 1, 1), (stream, kept_inputs, 1, 1)))
            inputs, kept_inputs = width, stream
    found.append(_layer("head", (10, 64), (10, 48)))
    return tuple(found)


def _curve() -> tuple[CurvePointPart, ...]:
    return tuple(
        CurvePointPart(
            epoch=epoch,
            learning_rate=0.02 * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2,
            train=round(0.93 - 0.25 * math.exp(-epoch / 3), 4),
            train_loss=round(1.9 * math.exp(-epoch / 5) + 0.31, 5),
            validation=round(0.925 - 0.22 * math.exp(-epoch / 3.2) - 0.006 * math.sin(2.3 * epoch), 4),
            test=round(0.918 - 0.2 * math.exp(-epoch / 3.4) - 0.005 * math.sin(1.7 * epoch), 4),
            seconds=3.1,
        )
        for epoch in range(EPOCHS)
    )


def recovery() -> RecoveryPart:
    curve = _curve()
    return RecoveryPart(
        epochs=EPOCHS,
        steps=EPOCHS * 70,
        schedule="cosine:0.02",
        schedule_reason=None,
        learning_rates=tuple((float(point.epoch), point.learning_rate) for point in curve),
        warmup_epochs=0.0,
        early=None,
        optimizer="SGD",
        momentum=0.9,
        nesterov=False,
        weight_decay=5e-4,
        batch_size=128,
        loss="cross-entropy + distillation",
        augmentation=("flip", "shift:2"),
        distillation=DistillationPart(temperature=4.0, weight=1.0),
        label_smoothing=0.0,
        clip_norm=None,
        ema=None,
        precision="fp32",
        accumulate=1,
        channels_last=False,
        compiled=False,
        processes=1,
        sync_batchnorm=False,
        resumed=False,
        seeds=(0,),
        curve=curve,
        trainability_accuracy=_CONSTANT,
        trainability_epochs=_CONSTANT,
        diagnosis=_CONSTANT,
        checkpoint="best",
        checkpoint_epoch=18,
        seconds=62.4,
    )


def _gate(gate: Gate, value: float) -> GatePart:
    return GatePart(name=gate.name, limit=gate.limit, value=value, verdict="passed", label=gate.label, unit=gate.unit)


def _measurements() -> dict[str, Any]:
    return {
        "accuracy": AccuracyPart(
            metric="top1",
            dense=0.9214,
            pruned=0.1124,
            sparse=0.1018,
            reestimated=Unknown("the pipeline has no such step."),
            recovered=0.9152,
            exported=0.9152,
            engine=AWAY,
        ),
        "oracle": OraclePart(
            exact=True, max_relative_error=_EXACT, masked_max_relative_error=_EXACT, inexact_groups=()
        ),
        "numerics": NumericsPart(onnx_vs_torch_max_relative_error=4.8e-7, engine_vs_torch_max_relative_error=AWAY),
        "latency": AWAY,
        "latency_cpu": LatencyPart(
            dense_ms=PercentilesPart(median=0.612, p90=0.655, p99=0.803),
            compiled_ms=PercentilesPart(median=0.338, p90=0.361, p99=0.472),
            speedup=1.81,
            speedup_interval=(1.78, 1.85),
            threads=1,
            batch=1,
            runs=200,
        ),
        "runs": (RunPart(seed=0, accuracy=0.9152),),
        "runs_summary": RunsSummaryPart(
            mean=0.9152, standard_deviation=Unknown("one seed only; a deviation needs at least two.")
        ),
        "gates": (_gate(MaxDropPoints(1.0), 0.62), _gate(MaxOnnxVsTorch(), 4.8e-7), _gate(EngineBuilt(), 1)),
    }


def sample_fields() -> dict[str, Any]:
    """Keyword arguments of `Report`; tests change one and rebuild."""
    return {
        "status": "PASSED",
        "exit_code": 0,
        "command": "prunec compile examples/fashion_mnist/model.pt --target a100-2:4",
        "target": "a100-2:4-fp16",
        "pipeline": 'prune-filters{speedup=2.0,round_to=8} sparsify{pattern="2:4"} recover{epochs=20}',
        "model": ModelPart(
            source_sha256="9f2b" * 16, architecture_sha256="41ac" * 16, input_shapes=((1, 28, 28),), lost_in_capture=()
        ),
        "data": DataPart(
            sha256="77e0" * 16,
            preprocessing_sha256="0b5d" * 16,
            train_images=9000,
            validation_images=1000,
            test_images=5000,
        ),
        "macs": MacsPart(
            dense=9_483_648,
            compiled=4_671_168,
            speedup=9_483_648 / 4_671_168,
            convention="convolutions and linear layers, one multiply-accumulate is 1",
        ),
        "parameters": ParametersPart(dense=175_258, compiled=88_090, zero_fraction=0.487),
        "size_bytes": SizeBytesPart(dense_onnx=709_124, compiled_onnx=360_412, engine=412_980),
        "pretraining": PretrainingPart(epochs=_UNTOLD, learning_rates=_UNTOLD),
        "pruning": PruningPart(
            base=None,
            structure="filters",
            ratio=0.31,
            criterion="l1",
            schedule="one-shot",
            rounding="min(ceil(ratio*n), n-1), then to multiples of 8",
            round_to=8,
            epochs=0,
            samples=0,
            groups=(PruningGroupPart(name="stage1.0.conv1", width=16, kept=8),),
        ),
        "permutation": PermutationPart(refused={}, cut_short=()),
        "recovery": recovery(),
        "steps": (
            StepPart(name="dense", macs=9_483_648, nonzero_weights=174_000, predicted_ms=0.0021, accuracy=0.9214),
            StepPart(
                name="prune-filters{speedup=2.0,round_to=8}",
                macs=4_671_168,
                nonzero_weights=87_000,
                predicted_ms=0.0013,
                accuracy=0.1124,
            ),
            StepPart(name="permute", macs=4_671_168, nonzero_weights=87_000, predicted_ms=0.0013, accuracy=_UNCHANGED),
            StepPart(
                name='sparsify{pattern="2:4"}',
                macs=4_671_168,
                nonzero_weights=44_000,
                predicted_ms=0.0011,
                accuracy=0.1018,
            ),
            StepPart(
                name="recover{epochs=20}", macs=4_671_168, nonzero_weights=44_000, predicted_ms=0.0011, accuracy=0.9152
            ),
        ),
        "layers": layers(),
        "engine_request": EngineRequestPart(dimensions={}, also_for=()),
        "engine": EnginePart(
            kind="tensorrt_rtx",
            path="engine.rtx",
            builder="tensorrt_rtx 1.7.1.116",
            gpu=None,
            built_ahead_of_time=True,
            compute_capabilities=("8.0",),
            dimensions={"batch": "1:8:32"},
            run_on_device=False,
            notes=RTX_NOTES,
        ),
        "environment": EnvironmentPart(
            versions={"torch": "2.13.0+cpu", "onnxruntime": "1.32.0", "onnx": "1.23.2", "tensorrt_rtx": "1.7.1.116"},
            processor="Intel(R) Xeon(R) CPU @ 2.60GHz",
            threads=1,
            gpu=None,
            gpu_state=AWAY,
        ),
    } | _measurements()


def sample_report(**changes: Any) -> Report:
    """The sample report with some top-level fields replaced."""
    return Report(**(sample_fields() | changes))
