"""What is known of one network: the outcome of each stage, and figures; one JSON file per network."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

#: ok; said: the network can't have it, which prunec says rightly; failed.
Verdict = Literal["ok", "said", "failed"]
#: The stages in their order, with their titles in the table.
STAGES = {
    "built": "built",
    "captured": "captured",
    "pruned": "pruned",
    "oracle": "oracle",
    "batch": "batch 3",
    "onnx": "float32",
    "fp16": "fp16",
    "engine": "L4 engine",
    "bf16": "bf16",
    "applied": "plan",
    "applied_for_module": "plan for module",
}


@dataclass(frozen=True)
class Outcome:
    """How a stage ended.

    Attributes:
        verdict: its end.
        reason: what failed or was said, the first lines of it.
        seconds: its duration, by the wall clock.
    """

    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0


@dataclass
class Row:
    """What is known of one network.

    Attributes:
        name: as in the catalogue.
        package: the package that it comes from.
        outcomes: those of the stages that were reached.
        figures: numbers measured on the way, by name: "macs_cut", "fp16_error".
        running: the stage that runs.
        seconds: the whole duration, imports included, by the wall clock.
    """

    name: str
    package: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    running: str = ""
    seconds: float = 0.0

    def is_(self, verdict: Verdict, stage: str) -> bool:
        """Whether a stage was reached and ended so."""
        return stage in self.outcomes and self.outcomes[stage].verdict == verdict

    @property
    def failures(self) -> dict[str, str]:
        """Reason by the stage that failed."""
        return {stage: o.reason for stage, o in self.outcomes.items() if o.verdict == "failed"}

    def write(self, folder: Path) -> None:
        """Write it into a folder, whole or not at all."""
        path = path_of(self.name, folder)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote."""
        values: dict[str, Any] = json.loads(path.read_text())
        outcomes = {stage: Outcome(**outcome) for stage, outcome in values.pop("outcomes").items()}
        return cls(outcomes=outcomes, **values)


def path_of(name: str, folder: Path) -> Path:
    """The file of a network's row."""
    return folder / (re.sub(r"[^\w.-]", "__", name) + ".json")


def stored(folder: Path, names: set[str]) -> dict[str, Row]:
    """The rows in a folder of these networks, by name."""
    rows = (Row.read(path) for path in sorted(folder.glob("*.json")))
    return {row.name: row for row in rows if row.name in names}
