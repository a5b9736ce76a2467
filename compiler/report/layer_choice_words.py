"""Layers in higher precision for a limit in words, shared by the terminal summary and the HTML page."""

from prunec.compiler.report.headline_figures import PLUS_MINUS
from prunec.compiler.report.layer_choice_part import LayerChoicePart, LayerSensitivityPart, LayerTrialPart
from prunec.compiler.report.report import Report
from prunec.passes.unknown import Unknown, known

#: Layers that a line names.
_NAMED = 3


def layer_choice(report: Report) -> LayerChoicePart | None:
    """The choice of layers that a report tells of; None where no limit was asked for, or older reports tell none."""
    part = known(report.calibration)
    return None if part is None else known(part.choice)


def precision_title(report: Report) -> str:
    """The precision of a report's target in capitals."""
    return report.target.rpartition("-")[2].upper()


def loss_words(of: LayerChoicePart | LayerTrialPart) -> str:
    """What was lost, with its margin."""
    if isinstance(of.lost, Unknown):
        return "outputs that can't be compared"
    if of.margin is None:
        return f"error of the outputs {of.lost:.2g}"
    return f"{of.lost:.2f} {PLUS_MINUS} {of.margin:.2g} points lost"


def choice_rows(report: Report) -> list[tuple[str, str]]:
    """Label and value of every line on the choice."""
    choice = layer_choice(report)
    if choice is None:
        return []
    rows = [("Mixed precision", _choice_words(choice))]
    return (
        [*rows, ("Sensitivity", _sensitivity_words(choice, precision_title(report)))] if choice.sensitivities else rows
    )


def _choice_words(choice: LayerChoicePart) -> str:
    """What was kept for which limit, and what it brought."""
    kept = f"{len(choice.kept) or 'none'} of {len(choice.sensitivities)} layers kept in higher precision"
    met = "met" if choice.is_met else "NOT met"
    lost = f"{loss_words(choice)} on {choice.samples} validation samples"
    before = f", {loss_words(choice.trials[0])} with none kept" if choice.kept else ""
    again = ", then judged with weights rounded as asked for" if choice.is_judged_again else ""
    tried = f"{len(choice.trials)} {'trial' if len(choice.trials) == 1 else 'trials'}"
    return f"{kept} for {choice.measure}={choice.limit:g}, {met}: {lost}{before}; {tried}{again}"


def _sensitivity_words(choice: LayerChoicePart, precision: str) -> str:
    """The layers that lose most."""
    worst = sorted(choice.sensitivities, key=_error, reverse=True)
    named = ", ".join(f"{each.layer} {error_words(each)}" for each in worst[:_NAMED])
    others = ", the others less" if len(worst) > _NAMED else ""
    return f"error of the outputs with one layer alone in {precision}: {named}{others}; {order_words(choice)}"


def order_words(choice: LayerChoicePart) -> str:
    """The order in which layers were taken."""
    if choice.cost_source is None:
        return "layers kept in the order of error per MAC, for lack of a cost model"
    how = "measured" if choice.cost_source == "measured" else "predicted"
    return f"layers kept in the order of error per {how} millisecond"


def error_words(layer: LayerSensitivityPart) -> str:
    """The error of a layer alone."""
    return "not known" if isinstance(layer.error, Unknown) else f"{layer.error:.2g}"


def trial_rows(choice: LayerChoicePart) -> list[tuple[int, str, str]]:
    """Of every trial and the network that is left: the number of layers kept, their names, and what was lost.

    One less than the fewest that met the limit before are told by the layer that is missing.
    """
    rows: list[tuple[int, str, str]] = []
    fewest: tuple[str, ...] = ()
    for trial in choice.trials:
        gone = [name for name in fewest if name not in trial.kept]
        is_one_less = len(gone) == 1 and len(trial.kept) == len(fewest) - 1
        layers = f"without {gone[0]}" if is_one_less else ", ".join(trial.kept)
        rows.append((len(trial.kept), layers, loss_words(trial)))
        if not isinstance(trial.lost, Unknown) and trial.lost <= choice.limit:
            fewest = trial.kept
    if choice.is_judged_again:
        rows.append((len(choice.kept), "those chosen, weights rounded as asked for", loss_words(choice)))
    return rows


def _error(layer: LayerSensitivityPart) -> float:
    return float("inf") if isinstance(layer.error, Unknown) else layer.error
