"""The table of the networks and the figures that they must reach."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tests.pages import percent, table
from tests.wild.rows import STAGES, Row

SECTION = "make wild"
_DRAWN = 40
_MINUTES = 100
#: Of a reason that are told, by default and on the page.
_CHARACTERS, _PAGE_CHARACTERS = 600, 240
_MARKS = {"ok": "yes", "said": "said", "failed": "no"}
_SHOWN = {stage: title for stage, title in STAGES.items() if stage != "built"}
_PLANS = ("applied", "applied_for_module")

_HEADER = """## {count} networks of {packages} packages

Networks that people use, in small configurations with random weights, none of them chosen or written for prunec;
`make wild` measures this section anew. Each is pruned by L1 at ratio 0.3 with everything open, after `fold-parameters`
where nothing could be pruned otherwise.

- **captured**: prunec's capture of a copy of the module.
- **pruned**: something goes; "said" where every layer makes an output of the network, so that nothing can.
- **oracle**: the pruned program equals the dense one whose removed slices are zero, in float64.
- **batch 3**: the pruned program runs at another batch than the example's, and gives the same rows.
- **float32**: its ONNX file is valid, and ONNX Runtime computes the same within 1e-4 of the outputs' scale.
- **fp16**, **bf16**: these forms are valid for ONNX's checker and shape inference, and within their tolerance.
- **L4 engine**: TensorRT-RTX builds an engine of the fp16 form for an L4; {drawn} networks are drawn.
- **plan**, **plan for module**: `apply_plan` makes the user's module equal to the program, or refuses with the operator
  and the line ("said"); with the option `for_module` the plan is made for that.
- **MACs cut**: share of the MACs that goes; with `for_module` after the stroke.

A network that doesn't get as far as a stage has missed it.
"""


def drawn(names: Sequence[str]) -> frozenset[str]:
    """The networks of which an engine is built: 40, drawn by seed 0."""
    return frozenset(Random(0).sample(sorted(names), min(_DRAWN, len(names))))


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        title: what is measured.
        told: the number, or the share, in words.
        bar: the bar in words; empty where the figure only is told.
        is_met: whether the bar is reached.
    """

    title: str
    told: str
    bar: str = ""
    is_met: bool = True


def figures(rows: Sequence[Row], with_engine: frozenset[str], jobs: int = 2) -> list[Figure]:
    """The figures of the networks that are known, of some of which an engine is built."""
    planned = [row for row in rows if _has_plan(row)]
    cut = sum(row.figures.get("macs_cut", 0.0) for row in rows) / max(len(rows), 1)
    minutes = sum(row.seconds for row in rows) / 60 / jobs
    return [
        _count("networks", len(rows), 100),
        _count("packages", len({row.package for row in rows}), 12),
        _share("captured", rows, _ok("captured"), 0.97),
        _share("pruned right by the oracle", rows, _ok("oracle"), 0.97),
        _share("runs at batch 3", rows, _ok("batch"), 0.93),
        _share("float32 ONNX within 1e-4", rows, _ok("onnx"), 0.97),
        _share("fp16 form valid and within its tolerance", rows, _ok("fp16"), 0.95),
        _share("bf16 form valid and within its tolerance", rows, _ok("bf16")),
        _share("engine for an L4", [row for row in rows if row.name in with_engine], _ok("engine"), 0.95),
        _share("plan equal, or refused with the line", planned, _plans_are_right, 1.0),
        _share("plan equal", planned, _ok("applied")),
        _share("plan for the module equal", planned, _ok("applied_for_module"), 0.75),
        Figure("mean MACs cut", percent(cut)),
        Figure(f"minutes on {jobs} cores", f"{minutes:.0f}", f"at most {_MINUTES}", minutes <= _MINUTES),
    ]


def _count(title: str, count: int, bar: int) -> Figure:
    return Figure(title, str(count), f"at least {bar}", count >= bar)


def _share(title: str, rows: Sequence[Row], passes: Callable[[Row], bool], bar: float | None = None) -> Figure:
    """The share of rows that pass; the bar is missed where there are none."""
    count = sum(map(passes, rows))
    share = count / max(len(rows), 1)
    told = f"{count} of {len(rows)}, {percent(share)}"
    return Figure(title, told) if bar is None else Figure(title, told, f"at least {percent(bar)}", share >= bar)


def _ok(stage: str) -> Callable[[Row], bool]:
    return lambda row: row.is_("ok", stage)


def _plans_are_right(row: Row) -> bool:
    return not row.failures.keys() & set(_PLANS)


def _has_plan(row: Row) -> bool:
    return any(stage in row.outcomes for stage in _PLANS)


def figures_table(found: Sequence[Figure]) -> str:
    """The figures against their bars."""
    cells = [(f.title, f.told, f.bar, ("met" if f.is_met else "missed") * bool(f.bar)) for f in found]
    return table(("figure", "reached", "bar", ""), cells)


def networks_table(rows: Sequence[Row]) -> str:
    """What became of each network, by stage."""
    header = ("network", *_SHOWN.values(), "MACs cut")
    return table(header, [(row.name, *(_mark(row, stage) for stage in _SHOWN), _cut(row.figures)) for row in rows])


def failures_list(rows: Sequence[Row], longest: int = _CHARACTERS) -> str:
    """Why each stage failed or refused that did, a line each; the two plans share one where it is the same reason."""
    lines: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for stage, outcome in row.outcomes.items():
            if outcome.reason:
                lines.setdefault((row.name, outcome.reason), []).append(STAGES[stage])
    told = (f"- {name}, {', '.join(stages)}: {_shortened(reason, longest)}" for (name, reason), stages in lines.items())
    return "\n".join(told) + "\n"


def _shortened(reason: str, longest: int) -> str:
    return reason if len(reason) <= longest else f"{reason[:longest]}..."


def section(rows: Sequence[Row], with_engine: frozenset[str]) -> str:
    """The section of the page."""
    header = _HEADER.format(count=len(rows), packages=len({row.package for row in rows}), drawn=len(with_engine))
    reasons = f"### What failed or was refused\n\n{failures_list(rows, _PAGE_CHARACTERS)}"
    return "\n".join([header, figures_table(figures(rows, with_engine)), networks_table(rows), reasons])


def _mark(row: Row, stage: str) -> str:
    return _MARKS[row.outcomes[stage].verdict] if stage in row.outcomes else "-"


def _cut(measured: Mapping[str, float]) -> str:
    cuts = [measured[name] for name in ("macs_cut", "macs_cut_for_module") if name in measured]
    return " / ".join(map(percent, cuts)) or "-"
