"""The coverage report: one row per network of the zoo, and the means over all."""

from collections.abc import Sequence

from tests.pages import percent, table
from tests.zoo.checks import Row

SECTION = "make zoo"
_HEADER = """## 70 architectures of torchvision and timm

What prunec does with 70 architectures of torchvision and timm; `make zoo` measures this section anew. Their weights are
random, every one of them: pruning is judged by equality here, not by accuracy.

- **prunable**: share of the MACs in layers that some prunable group is part of.
- **cut**: share of the MACs that goes at ratio 0.5 with everything open.
- **cut, exact only**: the same with groups under inexact operators frozen, and weights that are computed folded first
  (`fold-parameters`).
- **inexact under**: operators that mix the channels of prunable groups; exact where there is none.
- **error**: of the oracle in float64, relative, against the dense network with zeroed slices.
- **masked error**: the same where inexact operators see the kept channels only; must be below 1e-9 everywhere.
- **seconds**: of one core, for capture / analysis and pruning / export of the pruned network.
- **frozen**: why groups stay, and how many.

Every network must also pass: the oracle under random plans, the plain oracle with inexact groups frozen, {mutations}
mutations of the plan that the oracle must catch, batches of 2 and 3, saving and loading, ONNX Runtime within 1e-4,
training steps, and channel permutation for 2:4, after which the outputs must agree to 1e-9 in float64.
"""
_COLUMNS = (
    "network", "class", "nodes", "groups", "prunable", "cut", "cut, exact only", "inexact under", "error",
    "masked error", "seconds", "frozen",
)  # fmt: skip


def summary(rows: Sequence[Row]) -> list[tuple[str, int, int, float, float]]:
    """For each class and for all: (class, passed, networks, mean cut, mean exact cut); failures count as cutting 0."""
    kinds = sorted({row.kind for row in rows})
    result = []
    for kind in (*kinds, "all"):
        chosen = [row for row in rows if kind in (row.kind, "all")]
        passed = [row for row in chosen if not row.failures]
        cut, exact = (sum(values) / len(chosen) for values in ([r.cut for r in passed], [r.cut_exact for r in passed]))
        result.append((kind, len(passed), len(chosen), cut, exact))
    return result


def summary_table(rows: Sequence[Row]) -> str:
    """`summary` as a Markdown table."""
    cells = [(kind, f"{n} of {of}", percent(cut), percent(exact)) for kind, n, of, cut, exact in summary(rows)]
    return table(("class", "passed", "mean MACs cut", "exact only"), cells)


def markdown(rows: Sequence[Row], mutations: int) -> str:
    """The section of the page."""
    failures = [f"- {row.name}: {failure}" for row in rows for failure in row.failures]
    parts = [_HEADER.format(mutations=mutations), summary_table(rows), table(_COLUMNS, [_cells(row) for row in rows])]
    if failures:
        parts += ["### Failures\n", "\n".join(failures) + "\n"]
    return "\n".join(parts)


def _cells(row: Row) -> tuple[str, ...]:
    name = f"{row.name} (fails)" if row.failures else row.name
    seconds = (row.seconds.get(step) for step in ("capture", "prune", "export"))
    frozen = "; ".join(f"{reason} ({count})" for reason, count in row.frozen.items())
    return (
        name, row.kind, str(row.nodes), str(row.groups), percent(row.prunable), percent(row.cut),
        percent(row.cut_exact), ", ".join(row.inexact) or "exact", _error(row.error), _error(row.masked_error),
        " / ".join("-" if s is None else f"{s:.1f}" for s in seconds), frozen,
    )  # fmt: skip


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}"
