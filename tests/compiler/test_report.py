import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prunec.compiler.facts.outcome import OnThisCpu
from prunec.compiler.pipeline.own_steps import ACCURACY_STAGES
from prunec.compiler.report.assemble import summarise_runs
from prunec.compiler.report.engine_parts import GatePart, LatencyPart, PercentilesPart
from prunec.compiler.report.network_parts import LayerPart, LayerSparsityPart
from prunec.compiler.report.report import Report, report_schema
from prunec.compiler.report.report_text import extension_rows
from prunec.compiler.report.training_parts import AccuracyPart, RunPart
from prunec.passes.figures import plain_figures
from prunec.passes.unknown import Unknown, reason_of
from prunec.runtime.latency import LatencyComparison, Percentiles
from tests.compiler.sample_report import NO_GPU, sample_fields, sample_report

finite = st.floats(allow_nan=False, allow_infinity=False)
fractions = st.floats(0, 1)
unknowns = st.builds(Unknown, st.text(min_size=1, max_size=5))
maybe_ms = unknowns | st.floats(0, 1e6)
shapes = st.lists(st.integers(1, 4096), min_size=1, max_size=4).map(tuple)


@st.composite
def sparsities(draw: st.DrawFn) -> LayerSparsityPart:
    """Of a layer that is 2:4, with unknowns, or of one that says why it isn't, with nulls."""
    reason = draw(st.just("") | st.text(min_size=1, max_size=20))
    absent = st.none() if reason else unknowns
    return LayerSparsityPart(
        eligible=draw(st.booleans()),
        valid=draw(st.booleans()),
        reason=reason,
        retained_magnitude=draw(absent | fractions),
        retained_unpermuted=draw(absent | fractions),
        permutation_gain=draw(absent | finite),
        efficacy=draw(absent | finite),
        likely_to_gain=draw(st.booleans()),
        gain_rule=draw(st.text(max_size=5)),
        found_by_builder=draw(absent | st.booleans()),
        chosen_by_builder=draw(absent | st.booleans()),
    )


layers = st.builds(
    LayerPart,
    name=st.text(),
    operator=st.text(),
    shape=shapes,
    compiled_shape=shapes,
    kept=st.integers(0, 4096),
    sparsity=unknowns | sparsities(),
    dense_ms=maybe_ms,
    sparse_ms=maybe_ms,
    gain=unknowns | finite,
    predicted_dense_ms=maybe_ms,
    predicted_ms=maybe_ms,
    predicted_bound=unknowns | st.sampled_from(("compute", "memory")),
    onnx_nodes=st.lists(st.text(), max_size=2).map(tuple),
)
accuracies = st.builds(AccuracyPart, metric=st.text(), **dict.fromkeys(ACCURACY_STAGES, unknowns | fractions))


@given(st.lists(layers, max_size=4).map(tuple), accuracies, unknowns, st.text())
def test_json_round_trip(rows: tuple[LayerPart, ...], accuracy: AccuracyPart, unknown: Unknown, command: str) -> None:
    report = sample_report(layers=rows, accuracy=accuracy, recovery=unknown, command=command)
    text = report.to_json()
    assert Report.from_json(text) == report
    assert Report.from_json(text).to_json() == text
    json.loads(text, parse_constant=pytest.fail)  # called for NaN and infinities


told = st.recursive(
    unknowns | st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), st.dictionaries(st.text(), told, max_size=3), max_size=3))
def test_whatever_a_plug_in_tells_is_read_back(extensions: dict[str, dict[str, Any]]) -> None:
    report = sample_report(extensions={name: plain_figures(figures) for name, figures in extensions.items()})
    text = report.to_json()
    assert Report.from_json(text) == report
    assert Report.from_json(text).to_json() == text
    json.loads(text, parse_constant=pytest.fail)
    assert all(key in text for key in report.reasons if key.isalnum())
    assert "Unknown(" not in "".join(value for _, value in extension_rows(report)) or "Unknown(" in str(extensions)


def test_figures_that_are_not_known_keep_their_reasons() -> None:
    figures = {"watts": Unknown("no meter."), "by_layer": {"a.0": Unknown("no."), "a": [1.5, float("inf")]}}
    report = sample_report(extensions={"meter": plain_figures(figures)})
    stored = json.loads(report.to_json())
    assert stored["extensions"] == {"meter": {"watts": None, "by_layer": {"a.0": None, "a": [1.5, None]}}}
    assert {key: why for key, why in stored["reasons"].items() if key.startswith("extensions")} == {
        "extensions.meter.watts": "no meter.",
        'extensions.meter.by_layer."a.0"': "no.",
        "extensions.meter.by_layer.a.1": "the figure is inf, which JSON has no form for.",
    }
    assert extension_rows(report) == [("meter", "watts not known, by_layer {a.0: not known, a: [1.5, not known]}")]
    del stored["reasons"]["extensions.meter.watts"]
    with pytest.raises(ValidationError, match=r"null without an entry in reasons: extensions\.meter\.watts"):
        Report.model_validate(stored)


def test_a_row_of_which_nothing_is_known_keeps_its_reason() -> None:
    layer = sample_report().layers[1]
    figures = ("sparsity", "dense_ms", "sparse_ms", "gain", "predicted_dense_ms", "predicted_ms", "predicted_bound")
    blank = layer.model_copy(update=dict.fromkeys(figures, Unknown("nothing is known of it.")))
    untimed = layer.model_copy(update={"dense_ms": Unknown("it was not timed.")})
    report = sample_report(layers=(blank, untimed))
    assert Report.from_json(report.to_json()) == report


def test_the_json_is_canonical() -> None:
    text = sample_report().to_json()
    document = json.loads(text)
    assert text.endswith("}\n")
    assert list(document)[:4] == ["schema", "status", "exit_code", "command"]
    assert list(document["reasons"]) == sorted(document["reasons"])


def test_the_names_of_the_schema_are_a_contract() -> None:
    document = json.loads(sample_report().to_json())
    assert set(document) == {
        *("schema", "status", "exit_code", "command", "target", "pipeline", "model", "data", "macs"),
        *("parameters", "size_bytes", "accuracy", "oracle", "numerics", "latency", "latency_cpu", "pretraining"),
        *("masking", "sources", "compression_groups", "low_rank"),
        *("pruning", "permutation", "recovery", "steps", "engine_request", "runs", "runs_summary", "controls"),
        *(
            "calibration",
            "costs",
            "ledger",
            "layers",
            "gates",
            "engine",
            "environment",
            "extensions",
            "reasons",
            "plausibility",
            "warnings",
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


def document(**changes: Any) -> dict[str, Any]:
    """The sample as its file has it."""
    stored: dict[str, Any] = json.loads(sample_report().to_json())
    return stored | changes


def test_a_null_without_a_reason_is_an_error() -> None:
    stored = document()
    del stored["reasons"]["latency"], stored["reasons"]["layers.*.sparse_ms"]
    with pytest.raises(ValidationError, match=r"null without an entry in reasons: latency, layers\.0\.sparse_ms"):
        Report.model_validate(stored)


@pytest.mark.parametrize(
    "changes",
    [
        {"gates": None},
        {"reasons": {"latency": ""}},
        {"gates": 3},
        {"gates": [3]},
        {"reasons": ["x"]},
        {"reasons": 3},
        {"reasons": {"latency": ["x"]}},
    ],
)
def test_tables_of_other_types_are_errors(changes: dict[str, Any]) -> None:
    document = json.loads(sample_report().to_json()) | changes
    with pytest.raises(ValidationError):
        Report.from_json(json.dumps(document))


def test_a_prefix_explains_what_is_below_it() -> None:
    stored = document()
    reasons = {key: why for key, why in stored["reasons"].items() if not key.startswith("layers")}
    report = Report.model_validate(stored | {"reasons": reasons | {"layers": NO_GPU}})
    assert report.layers[0].sparse_ms == Unknown(NO_GPU)
    with pytest.raises(ValidationError, match=r"layers\.0"):
        Report.model_validate(stored | {"reasons": reasons | {"layers.1": NO_GPU}})
    with pytest.raises(ValidationError, match="null without an entry"):  # not a prefix by whole names
        Report.model_validate(stored | {"reasons": reasons | {"layer": NO_GPU}})


def test_a_reason_for_what_is_known_is_an_error() -> None:
    stored = document()
    stored["reasons"]["latency_cpu"] = "not measured."
    with pytest.raises(ValidationError, match="reasons for fields that are not null: latency_cpu"):
        Report.model_validate(stored)


def test_reasons_name_a_part_of_which_nothing_is_known_and_rows_that_differ() -> None:
    nothing = AccuracyPart(metric="top1", **dict.fromkeys(ACCURACY_STAGES, Unknown("no data.")))
    rows = list(sample_fields()["layers"])
    rows[2] = rows[2].model_copy(update={"sparse_ms": Unknown("fused.")})
    reasons = sample_report(accuracy=nothing, layers=tuple(rows)).reasons
    assert reasons["accuracy"] == "no data."
    assert not any(key.startswith("accuracy.") for key in reasons)
    assert (reasons["layers.2.sparse_ms"], reasons["layers.3.sparse_ms"]) == ("fused.", NO_GPU)
    assert "layers.*.sparse_ms" not in reasons
    assert reasons["layers.*.gain"] == NO_GPU


def test_a_layer_that_is_not_two_four_explains_its_nulls() -> None:
    fields = sample_fields()["layers"][1].sparsity.model_dump()
    with pytest.raises(ValidationError, match="null without an entry in reasons: efficacy"):
        LayerSparsityPart(**fields | {"efficacy": None, "found_by_builder": True, "chosen_by_builder": True})
    LayerSparsityPart(**fields | {"efficacy": None, "reason": "grouped", "chosen_by_builder": None})


def test_nulls_with_a_meaning_of_their_own_need_no_reason() -> None:
    recovery = sample_fields()["recovery"].model_copy(update={"distillation": None, "ema": None})
    assert sample_report(recovery=recovery).recovery is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        GatePart(name="max_drop_points", limit=1, value=value, verdict="failed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exit_code": 5}, "status is PASSED but exit_code is 5"),
        ({"gates": (GatePart(name="g", limit=1, value=2, verdict="failed"),)}, "these gates failed: g"),
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
        latency_cpu=Unknown("too few runs."),
        engine=Unknown("not asked for."),
        size_bytes=fields["size_bytes"].model_copy(update={"engine": 1}),
        environment=fields["environment"].model_copy(update={"threads": 8}),
        layers=tuple(layer.model_copy(update={"dense_ms": 5.0}) for layer in fields["layers"]),
    )
    assert other.deterministic_part() == sample_report().deterministic_part()
    assert "seconds" not in other.deterministic_part()
    different = sample_report(accuracy=fields["accuracy"].model_copy(update={"exported": 0.9}))
    assert different.deterministic_part() != sample_report().deterministic_part()


def test_runs_are_summarised_with_reasons() -> None:
    unmeasured = Unknown("the accuracy was not measured for every seed.")
    summary = summarise_runs((RunPart(seed=0, accuracy=0.9), RunPart(seed=1, accuracy=0.94)), seed_matters=True)
    assert summary.mean == pytest.approx(0.92)
    assert summary.standard_deviation == pytest.approx(0.02 * 2**0.5)
    summary = summarise_runs((RunPart(seed=0, accuracy=0.9),), seed_matters=False)
    assert summary.mean == 0.9
    assert summary.standard_deviation == Unknown("one seed only; a deviation needs at least two.")
    summary = summarise_runs((RunPart(seed=0, accuracy=0.9), RunPart(seed=1, accuracy=Unknown("no data."))), True)
    assert (summary.mean, summary.standard_deviation) == (unmeasured, unmeasured)
    assert summarise_runs((), seed_matters=False).mean == unmeasured
    summary = summarise_runs((RunPart(seed=0, accuracy=0.9), RunPart(seed=1, accuracy=0.9)), seed_matters=False)
    assert summary.mean == 0.9
    assert "depends on the seed" in reason_of(summary.standard_deviation)


def test_a_part_mirrors_objects() -> None:
    dense, compiled = Percentiles(2.0, 2.5, 3.0), Percentiles(1.0, 1.5, 2.0)
    comparison = LatencyComparison(dense, compiled, speedup=2.0, speedup_interval=(1.9, 2.1), runs=20)
    measured = OnThisCpu(comparison, batch=4, threads=2)
    part = LatencyPart.of(measured, comparison, dense_ms=dense, compiled_ms=compiled, runs=10)
    assert part == LatencyPart(
        dense_ms=PercentilesPart(median=2.0, p90=2.5, p99=3.0),
        compiled_ms=PercentilesPart(median=1.0, p90=1.5, p99=2.0),
        speedup=2.0,
        speedup_interval=(1.9, 2.1),
        threads=2,
        batch=4,
        runs=10,
    )
    with pytest.raises(ValueError, match="dense_ms"):
        LatencyPart.of(measured, comparison)
    with pytest.raises(ValueError, match="median"):
        LatencyPart.of(measured, comparison, dense_ms=comparison, compiled_ms=compiled)
    with pytest.raises(ValueError, match="warmup"):
        LatencyPart.of(measured, comparison, dense_ms=dense, compiled_ms=compiled, warmup=3)
