"""Low-rank layers in words, shared by the terminal summary and the HTML page."""

from prunec.compiler.report.headline_figures import percent
from prunec.compiler.report.report import Report
from prunec.passes.unknown import known

#: Layers that a line names.
_NAMED = 4


def low_rank_rows(report: Report) -> list[tuple[str, str]]:
    """Label and value of the line on layers that were decomposed; none where none were."""
    part = known(report.low_rank)
    if part is None or not part.layers:
        return []
    names = ", ".join(f"{layer.layer} to {layer.rank} of {layer.full_rank}" for layer in part.layers[:_NAMED])
    more = f" and {len(part.layers) - _NAMED} more" if len(part.layers) > _NAMED else ""
    lost = max(layer.lost for layer in part.layers)
    layers = "layer" if len(part.layers) == 1 else "layers"
    words = f"{len(part.layers)} {layers} decomposed, by rank: {names}{more}"
    return [("Low rank", f"{words}; at most {percent(lost)} of a weight's squared norm lost")]
