"""``prunec methods``."""

from prunec.compiler.cli import options
from prunec.compiler.cli.output import echo, print_json, print_table


def methods(as_json: options.AsJson = False) -> None:
    """List the methods that --method takes, with their papers, what they need and what they cost."""
    from prunec.compiler.methods.catalogue import METHODS

    known = METHODS.values()
    if as_json:
        print_json(
            [
                {
                    "method": method.name,
                    "summary": method.summary,
                    "papers": list(method.papers),
                    "readings": list(method.readings),
                    "structure": method.structure,
                    "needs": method.needs,
                    "cost": method.cost,
                    "criterion": method.criterion,
                    "allocation": method.allocation,
                    "hooks": method.hooks,
                    "base": method.base,
                }
                for method in known
            ]
        )
        return
    columns = ("method", "what goes", "from", "structure", "needs", "cost of choosing")
    rows = [(m.name, m.summary, "; ".join(m.papers), m.structure, m.needs, m.cost) for m in known]
    print_table("methods", columns, rows)
    echo("prunec compile CHECKPOINT --target TARGET --method NAME --ratio 0.5 --dry-run shows a method's steps.")
