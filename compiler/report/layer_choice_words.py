"""Layers in higher precision for a limit in words, shared by the terminal summary and the HTML page."""

from prunec.compiler.report.headline_figures import PLUS_MINUS, si
from prunec.compiler.report.layer_choice_part import LayerChoicePart, LayerSensitivityPart, LayerTrialPart
from prunec.compiler.report.report import Report
from prunec.passes.unknown import Unknown, known

#: Layers that a line names.
_NAMED = 3


def layer_choice(report: Report) -> LayerChoicePart | None:
    """The choice of layers that a report tells of; None where no limit was asked for, or older reports tell none."""
    part = known(report.calibration)
    return None if part is None else known(part.choice)


def loss_words(of: LayerChoicePart | LayerTrialPart) -> str:
    """What was lost, with its margin."""
    if of.margin is None:
        return f"squared error of the outputs {of.lost:.2g}"
    return f"{of.lost:.2f} {PLUS_MINUS} {of.margin:.2g} points lost"


def choice_rows(report: Report) -> list[tuple[str, str]]:
    """Label and value of every line on the choice."""
    choice = layer_choice(report)
    if choice is None:
        return []
    return [("Mixed precision", _choice_words(choice)), ("Sensitivity", _sensitivity_words(choice))]


def _choice_words(choice: LayerChoicePart) -> str:
    """What was kept for which limit, and what it brought."""
    kept = f"{len(choice.kept) or 'none'} of {len(choice.sensitivities)} layers kept in higher precision"
    met = "met" if choice.is_met else "NOT met"
    lost = f"{loss_words(choice)} on {choice.samples} validation samples"
    before = f", {loss_words(choice.trials[0])} with none kept" if choice.kept else ""
    again = ", the last judged again with its weights as rounded" if choice.is_judged_again else ""
    tried = f"{len(choice.trials)} {'trial' if len(choice.trials) == 1 else 'trials'}"
    return f"{kept} for {choice.measure}={choice.limit:g}, {met}: {lost}{before}; {tried}{again}"


def _sensitivity_words(choice: LayerChoicePart) -> str:
    """The layers that lose most."""
    worst = sorted(choice.sensitivities, key=_error, reverse=True)
    named = ", ".join(f"{each.layer} {error_words(each)}" for each in worst[:_NAMED])
    others = f", {len(worst) - _NAMED} others less" if len(worst) > _NAMED else ""
    return f"squared error of the outputs with one layer alone in INT8: {named}{others}; {order_words(choice)}"


def order_words(choice: LayerChoicePart) -> str:
    """In which order layers were taken."""
    if choice.cost_source is None:
        return "layers kept in the order of error per MAC, for lack of a cost model"
    how = "measured" if choice.cost_source == "measured" else "predicted"
    return f"layers kept in the order of error per {how} millisecond"


def error_words(layer: LayerSensitivityPart) -> str:
    """The error of a layer alone."""
    return "not known" if isinstance(layer.error, Unknown) else f"{layer.error:.2g}"


def layer_costs_words(choice: LayerChoicePart) -> dict[str, tuple[str, str]]:
    """Error alone and cost of every layer, by its name."""
    return {each.layer: (error_words(each), _cost_words(choice, each.cost)) for each in choice.sensitivities}


def _cost_words(choice: LayerChoicePart, cost: float) -> str:
    return f"{si(round(cost))} MACs" if choice.cost_source is None else f"{cost:.3g} ms"


def _error(layer: LayerSensitivityPart) -> float:
    return float("inf") if isinstance(layer.error, Unknown) else layer.error
