"""Masks in words, shared by the terminal summary, the HTML page and the last line."""

from prunec.compiler.report.headline_figures import percent, si
from prunec.compiler.report.masking_part import MaskingPart
from prunec.compiler.report.report import Report
from prunec.passes.unknown import known


def masking_rows(report: Report) -> list[tuple[str, str]]:
    """Label and value of every line on masks; none where nothing was masked."""
    return [("Masks", _words(part)) for part in known(report.masking) or ()]


def theoretical_masks(report: Report) -> tuple[MaskingPart, ...]:
    """The last of the maskings by each pattern that masked something and makes nothing faster."""
    by_pattern = {part.pattern: part for part in known(report.masking) or () if part.masked}
    return tuple(part for part in by_pattern.values() if part.speed == "theoretical")


def theoretical_words(part: MaskingPart, target: str) -> str:
    """The sentence that such masks make nothing faster."""
    return f"masks of {part.pattern} make nothing faster on {target}, their gain is theoretical: {part.why}"


def _words(part: MaskingPart) -> str:
    share = f"{percent(part.masked_share)} of {si(part.weights)} weights ({percent(part.asked_share)} asked for)"
    per = "in each layer" if part.allocation == "layer" else "of all layers together"
    return f"{part.pattern} by {part.criterion}: {share} {per}; {part.speed}: {part.why}"
