"""The schema of report.json, version 1: the compiled network, the measurements, and reasons for those that lack.

Nothing is silently null: what is not known is an `Unknown` with its reason, which the file tells under `reasons`. A
field that a later prunec added has a default, so that every report of this version stays readable.
"""

import json
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, computed_field, model_validator
from pydantic_core import from_json

from prunec.compiler.report import cost_parts, engine_parts, network_parts, training_parts
from prunec.compiler.report.calibration_part import CalibrationPart
from prunec.compiler.report.ledger_part import LedgerEntryPart
from prunec.compiler.report.low_rank_part import LowRankPart
from prunec.compiler.report.masking_part import MaskingPart
from prunec.compiler.report.method_parts import SourcePart
from prunec.compiler.report.nulls import (
    NOT_RECORDED,
    Figures,
    Maybe,
    NullMeans,
    covers,
    reasons_of,
    steps_of,
    with_unknowns,
)
from prunec.compiler.report.report_part import Part

#: Size of a report.json that is read; a network of 10,000 layers has one of 20 MB.
MAX_REPORT_BYTES = 64 << 20


class Report(Part):
    """The whole report.

    `extensions` holds what training hooks and steps of other packages tell, by their names; where several of one name
    tell something, the second stands under ``NAME#2``, and so on. `warnings` are what speaks against the result and no
    gate covers.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    status: Literal["PASSED", "FAILED"]
    exit_code: int = Field(ge=0)
    command: str
    target: str
    pipeline: str
    model: network_parts.ModelPart
    data: Maybe[training_parts.DataPart]
    macs: network_parts.MacsPart
    parameters: network_parts.ParametersPart
    size_bytes: network_parts.SizeBytesPart
    accuracy: training_parts.AccuracyPart
    oracle: Maybe[network_parts.OraclePart]
    numerics: network_parts.NumericsPart
    latency: Maybe[engine_parts.LatencyPart]
    latency_cpu: Maybe[engine_parts.LatencyPart] = NOT_RECORDED
    pretraining: training_parts.PretrainingPart
    pruning: Maybe[network_parts.PruningPart]
    masking: Maybe[tuple[MaskingPart, ...]] = NOT_RECORDED
    permutation: Maybe[network_parts.PermutationPart] = NOT_RECORDED
    recovery: Maybe[training_parts.RecoveryPart]
    runs: tuple[training_parts.RunPart, ...]
    runs_summary: training_parts.RunsSummaryPart
    controls: tuple[training_parts.ControlPart, ...] = ()
    steps: Maybe[tuple[network_parts.StepPart, ...]] = NOT_RECORDED
    ledger: Maybe[tuple[LedgerEntryPart, ...]] = NOT_RECORDED
    layers: tuple[network_parts.LayerPart, ...]
    gates: tuple[engine_parts.GatePart, ...]
    engine_request: engine_parts.EngineRequestPart = engine_parts.EngineRequestPart()
    engine: Maybe[engine_parts.EnginePart]
    environment: engine_parts.EnvironmentPart
    extensions: dict[str, Figures] = Field(default_factory=dict)
    plausibility: Maybe[training_parts.PlausibilityPart] = NOT_RECORDED
    warnings: Maybe[tuple[str, ...]] = NOT_RECORDED
    calibration: Maybe[CalibrationPart] = NOT_RECORDED
    costs: Annotated[cost_parts.CostsPart | None, NullMeans("no cost model was used")] = None
    sources: Maybe[tuple[SourcePart, ...]] = NOT_RECORDED
    compression_groups: Maybe[tuple[str, ...]] = NOT_RECORDED
    low_rank: Maybe[LowRankPart] = NOT_RECORDED

    # What differs between two runs on one kind of machine. Nested fields: path with "*" for list indices.
    MEASURED: ClassVar[tuple[str, ...]] = (
        *("command", "environment", "latency", "latency_cpu", "engine", "size_bytes.engine", "warnings"),
        *("numerics.engine_vs_torch_max_relative_error", "numerics.engine_vs_fp32_relative_error"),
        *("recovery.seconds", "recovery.resumed", "recovery.curve.*.seconds"),
        "steps.*.preflight",
        *("costs.seconds", "pruning.timed"),
        *("layers.*.dense_ms", "layers.*.sparse_ms", "layers.*.gain"),
        *("layers.*.sparsity.found_by_builder", "layers.*.sparsity.chosen_by_builder"),
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def reasons(self) -> dict[str, Annotated[str, Field(min_length=1)]]:
        """Why fields are not known, by dotted path (`nulls`)."""
        return reasons_of(self)

    @model_validator(mode="before")
    @classmethod
    def _read_nulls(cls, document: Any) -> Any:
        is_stored = isinstance(document, dict) and "reasons" in document
        return with_unknowns(cls, _completed(document)) if is_stored else document

    @model_validator(mode="after")
    def _check_status(self) -> Self:
        if (self.status == "PASSED") != (self.exit_code == 0):
            raise ValueError(f"status is {self.status} but exit_code is {self.exit_code}")
        failed = [gate.name for gate in self.gates if gate.verdict == "failed"]
        if failed and self.status == "PASSED":
            raise ValueError(f"status is PASSED but these gates failed: {', '.join(failed)}")
        return self

    @property
    def compiled_layers(self) -> tuple[network_parts.LayerPart, ...]:
        """The layers that the compiled network has."""
        return tuple(layer for layer in self.layers if layer.is_compiled)

    @property
    def removed_branches(self) -> tuple[str, ...]:
        """The residual branches that layers were removed with."""
        return tuple(dict.fromkeys(layer.removed_with for layer in self.layers if layer.removed_with is not None))

    @property
    def passed(self) -> bool:
        """Whether the exit code is 0."""
        return self.status == "PASSED"

    def to_json(self) -> str:
        """Canonical JSON: fields in schema order, two spaces, UTF-8, newline at the end."""
        return _canonical(self.model_dump(mode="json", by_alias=True))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: The text is not JSON, or not a report of this schema version.
        """
        return cls.model_validate(from_json(text, allow_inf_nan=False))

    def deterministic_part(self) -> str:
        """Canonical JSON of what two compiles share: no times, engine, environment or command."""
        document: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        for path in self.MEASURED:
            _remove(document, path.split("."))
        document["reasons"] = {
            key: reason
            for key, reason in document["reasons"].items()
            if not any(covers(measured, steps_of(key.replace("*", "0"))) for measured in self.MEASURED)
        }
        return _canonical(document)


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    """A stored report with what an older prunec left out and the rest tells: whether unknown gates were let pass."""
    reasons, gates = document["reasons"], document.get("gates")
    if not isinstance(reasons, dict) or not all(reason and isinstance(reason, str) for reason in reasons.values()):
        raise ValueError("reasons: expected texts by path, none of them empty")
    if not isinstance(gates, list):
        return document
    passed = document.get("status") == "PASSED"
    rows = [
        {"allow_unknown": passed and gate.get("verdict") == "unknown", **gate} if isinstance(gate, dict) else gate
        for gate in gates
    ]
    return document | {"gates": rows}


def report_schema() -> str:
    """JSON schema of report.json, as canonical JSON."""
    return _canonical(Report.model_json_schema(by_alias=True, mode="serialization"))


def _canonical(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _remove(document: Any, path: list[str]) -> None:
    head, *rest = path
    if document is None:
        return
    if head == "*":
        for item in document:
            _remove(item, rest)
    elif rest:
        _remove(document.get(head), rest)
    else:
        document.pop(head, None)
