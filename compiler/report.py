"""report.json, schema version 1: what was compiled, what was measured, and why the rest was not.

Nothing is silently null: a report whose null fields are not all explained under `reasons` cannot be built.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from prunec.compiler.report_parts import (
    Accuracy,
    Control,
    CurvePoint,
    DataInfo,
    Distillation,
    Engine,
    EngineRequest,
    Environment,
    Gate,
    GpuState,
    Latency,
    Layer,
    LayerSparsity,
    Macs,
    Model,
    NullMeans,
    Numerics,
    Oracle,
    Parameters,
    Part,
    Percentiles,
    Permutation,
    Pretraining,
    Pruning,
    PruningGroup,
    Recovery,
    Run,
    RunsSummary,
    SizeBytes,
    SortedDict,
    Step,
    Verdict,
    summarise_runs,
)

__all__ = [
    "Accuracy",
    "Control",
    "CurvePoint",
    "DataInfo",
    "Distillation",
    "Engine",
    "EngineRequest",
    "Environment",
    "Gate",
    "GpuState",
    "Latency",
    "Layer",
    "LayerSparsity",
    "Macs",
    "Model",
    "Numerics",
    "Oracle",
    "Parameters",
    "Percentiles",
    "Pretraining",
    "Permutation",
    "Pruning",
    "PruningGroup",
    "Recovery",
    "Report",
    "Run",
    "RunsSummary",
    "SizeBytes",
    "Step",
    "Verdict",
    "needed_reasons",
    "report_schema",
    "summarise_runs",
]


class Report(Part):
    """The whole report.

    `reasons` maps the dotted path of a null field, or a prefix of it, to the reason in words; `*` stands for
    any list index (``layers.*.dense_ms``). Null fields without a reason, and reasons for fields that are not
    null, are errors.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    status: Literal["PASSED", "FAILED"]
    exit_code: int = Field(ge=0)
    command: str
    target: str
    pipeline: str
    model: Model
    data: DataInfo | None
    macs: Macs
    parameters: Parameters
    size_bytes: SizeBytes
    accuracy: Accuracy
    oracle: Oracle | None
    numerics: Numerics
    latency: Latency | None
    latency_cpu: Latency | None
    pretraining: Pretraining
    pruning: Pruning | None
    permutation: Permutation | None
    recovery: Recovery | None
    runs: tuple[Run, ...]
    runs_summary: RunsSummary
    controls: tuple[Control, ...] = ()
    steps: tuple[Step, ...]
    layers: tuple[Layer, ...]
    gates: tuple[Gate, ...]
    engine_request: EngineRequest
    engine: Engine | None
    environment: Environment
    reasons: SortedDict[Annotated[str, Field(min_length=1)]]

    # What differs between two runs on one kind of machine. Nested fields: path with "*" for list indices.
    MEASURED: ClassVar[tuple[str, ...]] = (
        "latency",
        "latency_cpu",
        "environment",
        "engine",
        "command",
        "size_bytes.engine",
        "recovery.seconds",
        "recovery.resumed",
        "recovery.curve.*.seconds",
        "layers.*.dense_ms",
        "layers.*.sparse_ms",
        "layers.*.gain",
        "layers.*.sparsity.found_by_builder",
        "layers.*.sparsity.chosen_by_builder",
    )

    @model_validator(mode="after")
    def _check_status(self) -> Self:
        if (self.status == "PASSED") != (self.exit_code == 0):
            raise ValueError(f"status is {self.status} but exit_code is {self.exit_code}")
        failed = [gate.name for gate in self.gates if gate.verdict == "failed"]
        if failed and self.status == "PASSED":
            raise ValueError(f"status is PASSED but these gates failed: {', '.join(failed)}")
        return self

    @model_validator(mode="after")
    def _check_reasons(self) -> Self:
        nulls = list(_null_paths(self, ()))
        unexplained = [path for path in nulls if not any(_covers(key, path) for key in self.reasons)]
        if unexplained:
            paths = ", ".join(".".join(path) for path in unexplained)
            raise ValueError(f"null without an entry in reasons: {paths}")
        idle = [key for key in self.reasons if "*" not in key and not any(_covers(key, p) for p in nulls)]
        if idle:
            raise ValueError(f"reasons for fields that are not null: {', '.join(idle)}")
        return self

    @property
    def passed(self) -> bool:
        return self.status == "PASSED"

    def to_json(self) -> str:
        """Canonical JSON: fields in schema order, two spaces, UTF-8, newline at the end."""
        return _canonical(self.model_dump(mode="json", by_alias=True))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            pydantic.ValidationError: not JSON, or not a report of this schema version.
        """
        return cls.model_validate_json(text)

    def deterministic_part(self) -> str:
        """Canonical JSON of what two compiles share: no times, engine, environment or command."""
        document: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        for path in self.MEASURED:
            _remove(document, path.split("."))
        document["reasons"] = {
            key: reason
            for key, reason in document["reasons"].items()
            if not any(_covers(measured, tuple(key.split("."))) for measured in self.MEASURED)
        }
        return _canonical(document)


def needed_reasons(reasons: Mapping[str, str], value: object, name: str) -> dict[str, str]:
    """Those of the reasons that explain a null in the report's field of this name."""
    nulls = list(_null_paths(value, (name,)))
    return {key: reason for key, reason in reasons.items() if any(_covers(key, path) for path in nulls)}


def report_schema() -> str:
    """JSON schema of report.json, as canonical JSON."""
    return _canonical(Report.model_json_schema(by_alias=True))


def _canonical(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _null_paths(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Paths of the nulls below `value` that mean "not known"."""
    if isinstance(value, Part):
        explains_itself = isinstance(value, LayerSparsity) and value.reason != ""
        for name, field in type(value).model_fields.items():
            child = getattr(value, name)
            if child is not None:
                yield from _null_paths(child, (*path, name))
            elif not explains_itself and not any(isinstance(m, NullMeans) for m in field.metadata):
                yield (*path, name)
    elif isinstance(value, tuple):
        for index, child in enumerate(value):
            yield from _null_paths(child, (*path, str(index)))


def _covers(key: str, path: tuple[str, ...]) -> bool:
    """Whether `key` is `path` or a prefix of it; ``*`` in `key` stands for any list index."""
    parts = key.split(".")
    return len(parts) <= len(path) and all(
        part == step or (part == "*" and step.isdigit()) for part, step in zip(parts, path, strict=False)
    )


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
