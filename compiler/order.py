"""Which steps of a pipeline must precede which, and why: a partial order, one table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prunec.passes.errors import UsageError


@dataclass(frozen=True)
class Edge:
    """The last `earlier` step must stand before the first, or the last, `later` one."""

    earlier: str
    later: str
    which: Literal["first", "last"]
    reason: str


EDGES = (
    Edge(
        "fold-parameters",
        "prune-filters",
        "first",
        "a plan names the parameters that are there when filters are pruned",
    ),
    Edge(
        "prune-filters",
        "sparsify",
        "first",
        "removing channels shifts the fours of input channels that a mask was made for, so that it is 2:4 no more",
    ),
    Edge(
        "prune-filters",
        "permute",
        "first",
        "removing channels shifts the fours of input channels that an order was searched for",
    ),
    Edge(
        "permute",
        "sparsify",
        "first",
        "another order of the channels tears the fours of a mask apart, so that it is 2:4 no more",
    ),
    *(
        Edge(
            earlier,
            "re-estimate-batchnorm",
            "last",
            "what it changes is what the batch norms' statistics are measured on",
        )
        for earlier in ("prune-filters", "sparsify")
    ),
    Edge(
        "prune-filters",
        "recover",
        "last",
        "filters removed after the last finetune cost accuracy that nothing wins back",
    ),
    Edge(
        "sparsify",
        "recover",
        "last",
        "weights masked after the last finetune cost accuracy that nothing wins back",
    ),
)


def check_order(names: Sequence[str]) -> None:
    """Check the names of a pipeline's steps, repeats expanded, against `EDGES`.

    Raises:
        UsageError: a step stands where it must not; the message gives the reason.
    """
    for edge in EDGES:
        earlier = [i for i, name in enumerate(names) if name == edge.earlier]
        later = [i for i, name in enumerate(names) if name == edge.later]
        if earlier and later and earlier[-1] > (later[0] if edge.which == "first" else later[-1]):
            raise UsageError(
                f"The pipeline has {edge.earlier} after {edge.later}: {edge.reason}.",
                hint=f"Put {edge.earlier} before {edge.later}.",
            )
