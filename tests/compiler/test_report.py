import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prunec.compiler.report import (
    Accuracy,
    Gate,
    Layer,
    LayerSparsity,
    Report,
    Run,
    report_schema,
    summarise_runs,
)
from prunec.compiler.stage_names import STAGES
from tests.compiler.sample_report import NO_GPU, sample_fields, sample_report

finite = st.floats(allow_nan=False, allow_infinity=False)
fractions = st.floats(0, 1)
maybe_ms = st.none() | st.floats(0, 1e6)
shapes = st.lists(st.integers(1, 4096), min_size=1, max_size=4).map(tuple)
sparsities = st.builds(
    LayerSparsity,
    eligible=st.booleans(),
    valid=st.booleans(),
    reason=st.text(max_size=20),
    retained_magnitude=st.none() | fractions,
    retained_unpermuted=st.none() | fractions,
    permutation_gain=st.none() | finite,
    efficacy=st.none() | finite,
    found_by_builder=st.none() | st.booleans(),
    chosen_by_builder=st.none() | st.booleans(),
)
layers = st.builds(
    Layer,
    name=st.text(),
    operator=st.text(),
    shape=shapes,
    compiled_shape=shapes,
    kept=st.integers(0, 4096),
    sparsity=st.none() | sparsities,
    dense_ms=maybe_ms,
    sparse_ms=maybe_ms,
    gain=st.none() | finite,
    predicted_dense_ms=maybe_ms,
    predicted_ms=maybe_ms,
    predicted_bound=st.sampled_from((None, "compute", "memory")),
    onnx_nodes=st.lists(st.text(), max_size=2).map(tuple),
)
_PREDICTED = ("predicted_dense_ms", "predicted_ms", "predicted_bound")
accuracies = st.builds(
    Accuracy,
    metric=st.text(),
    **dict.fromkeys(STAGES, st.none() | fractions),
)


def explained(**changes: Any) -> dict[str, Any]:
    """Fields of the sample in which every null below `layers` and `accuracy` may occur."""
    reasons = {key: why for key, why in sample_fields()["reasons"].items() if not key.startswith("accuracy")}
    every = {f"layers.*.{name}": "l" for name in ("sparsity", "dense_ms", *_PREDICTED)}
    if None in changes["accuracy"].model_dump().values():
        every["accuracy"] = "not evaluated."
    return sample_fields() | changes | {"reasons": reasons | every}


@given(st.lists(layers, max_size=4).map(tuple), accuracies, st.text())
def test_json_round_trip(found: tuple[Layer, ...], accuracy: Accuracy, command: str) -> None:
    report = Report(**explained(layers=found, accuracy=accuracy, command=command))
    text = report.to_json()
    assert Report.from_json(text) == report
    assert Report.from_json(text).to_json() == text
    json.loads(text, parse_constant=pytest.fail)  # called for NaN and infinities


def test_the_json_is_canonical() -> None:
    text = sample_report().to_json()
    document = json.loads(text)
    assert text.endswith("}\n")
    assert list(document)[:4] == ["schema", "status", "exit_code", "command"]
    assert list(document["reasons"]) == sorted(document["reasons"])
    shuffled = dict(reversed(sample_fields()["reasons"].items()))
    assert sample_report(reasons=shuffled).to_json() == text


def test_the_names_of_the_schema_are_a_contract() -> None:
    document = json.loads(sample_report().to_json())
    assert set(document) == {
        *("schema", "status", "exit_code", "command", "target", "pipeline", "model", "data", "macs"),
        *(
            "parameters",
            "size_bytes",
            "accuracy",
            "oracle",
            "numerics",
            "latency",
            "latency_cpu",
            "pretraining",
        ),
        *(
            "pruning",
            "permutation",
            "recovery",
            "steps",
            "engine_request",
            "runs",
            "runs_summary",
            "controls",
            "layers",
            "gates",
            "engine",
            "environment",
            "reasons",
        ),
    }
    assert document["schema"] == 1
    assert {"structure", "ratio", "criterion", "schedule", "rounding", "epochs", "samples"} < set(document["pruning"])
    curve = {"epoch", "learning_rate", "train_loss", "train", "validation", "test", "seconds"}
    assert set(document["recovery"]["curve"][0]) == curve
    assert set(document["layers"][0]["sparsity"]) == {
        *(
            "eligible",
            "valid",
            "reason",
            "retained_magnitude",
            "retained_unpermuted",
            "permutation_gain",
            "efficacy",
            "likely_to_gain",
            "gain_rule",
            "found_by_builder",
            "chosen_by_builder",
        )
    }
    schema = json.loads(report_schema())
    assert set(schema["properties"]) == set(document)
    assert schema["additionalProperties"] is False


def test_a_null_without_a_reason_is_an_error() -> None:
    reasons = sample_fields()["reasons"]
    del reasons["latency"], reasons["layers.*.sparse_ms"]
    with pytest.raises(ValidationError, match=r"null without an entry in reasons: latency, layers\.0\.sparse_ms"):
        sample_report(reasons=reasons)


def test_a_prefix_explains_what_is_below_it() -> None:
    reasons = {key: why for key, why in sample_fields()["reasons"].items() if not key.startswith("layers")}
    assert sample_report(reasons=reasons | {"layers": NO_GPU}).reasons["layers"] == NO_GPU
    with pytest.raises(ValidationError, match=r"layers\.0"):
        sample_report(reasons=reasons | {"layers.1": NO_GPU})
    with pytest.raises(ValidationError, match="null without an entry"):
        sample_report(reasons=reasons | {"layer": NO_GPU})  # not a prefix by whole names


def test_a_reason_for_what_is_known_is_an_error() -> None:
    reasons = sample_fields()["reasons"] | {"latency_cpu": "not measured."}
    with pytest.raises(ValidationError, match="reasons for fields that are not null: latency_cpu"):
        sample_report(reasons=reasons)


def test_nulls_with_a_meaning_of_their_own_need_no_reason() -> None:
    recovery = sample_fields()["recovery"].model_copy(update={"distillation": None, "ema": None})
    assert sample_report(recovery=recovery).recovery is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Gate(name="max_drop_points", limit=1, value=value, verdict="failed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exit_code": 5}, "status is PASSED but exit_code is 5"),
        ({"gates": (Gate(name="g", limit=1, value=2, verdict="failed"),)}, "these gates failed: g"),
        ({"surprise": 1}, "Extra inputs are not permitted"),
        ({"schema": 2}, "Input should be 1"),
    ],
)
def test_contradictions_are_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        sample_report(**changes)


def test_the_deterministic_part_ignores_what_is_measured() -> None:
    fields = sample_fields()
    slower = fields["recovery"].model_copy(
        update={
            "seconds": 99.0,
            "curve": tuple(p.model_copy(update={"seconds": 9.0}) for p in fields["recovery"].curve),
        }
    )
    other = sample_report(
        recovery=slower,
        command="prunec compile elsewhere.pt",
        latency_cpu=None,
        engine=None,
        size_bytes=fields["size_bytes"].model_copy(update={"engine": 1}),
        environment=fields["environment"].model_copy(update={"threads": 8}),
        layers=tuple(layer.model_copy(update={"dense_ms": 5.0}) for layer in fields["layers"]),
        reasons=fields["reasons"] | {"latency_cpu": "too few runs.", "engine": "not asked for."},
    )
    assert other.deterministic_part() == sample_report().deterministic_part()
    assert "seconds" not in other.deterministic_part()
    different = sample_report(accuracy=fields["accuracy"].model_copy(update={"exported": 0.9}))
    assert different.deterministic_part() != sample_report().deterministic_part()


def test_runs_are_summarised_with_reasons() -> None:
    summary, reasons = summarise_runs((Run(seed=0, accuracy=0.9), Run(seed=1, accuracy=0.94)))
    assert summary.mean == pytest.approx(0.92)
    assert summary.standard_deviation == pytest.approx(0.02 * 2**0.5)
    assert reasons == {}
    summary, reasons = summarise_runs((Run(seed=0, accuracy=0.9),))
    assert (summary.mean, summary.standard_deviation) == (0.9, None)
    assert list(reasons) == ["runs_summary.standard_deviation"]
    summary, reasons = summarise_runs((Run(seed=0, accuracy=0.9), Run(seed=1, accuracy=None)))
    assert summary.mean is None
    assert set(reasons) == {"runs_summary", "runs"}
    assert set(summarise_runs(())[1]) == {"runs_summary"}
