"""The page of a forecast, which is self-contained and loads nothing from anywhere."""

import plotly.offline
from markupsafe import Markup

from prunec.compiler.drawing.forecast_charts import forecast_charts
from prunec.compiler.drawing.templating import environment, script_json
from prunec.compiler.facts.forecast import Forecast
from prunec.compiler.report import forecast_words
from prunec.compiler.report.headline_figures import NOT_MEASURED, Figure


def render_forecast(forecast: Forecast, command: str) -> str:
    """A forecast as an HTML document of about 5 MB, nearly all of it plotly.js.

    Args:
        forecast: The forecast.
        command: The command line that it was made by.
    """
    figures = forecast_charts(forecast)
    return (
        environment()
        .get_template("forecast.html.jinja")
        .render(
            forecast=forecast,
            command=command,
            words=forecast_words,
            headline=_headline(forecast),
            charts=figures,
            charts_json=script_json(figures),
            plotly_js=Markup(plotly.offline.get_plotlyjs()),
        )
    )


def _headline(forecast: Forecast) -> list[Figure]:
    """The figures a reader looks for first, in order."""
    gain, measured = forecast_words.gain, forecast.measured
    _, dense, pruned, *_ = forecast_words.figure_rows(forecast)[0]
    kept = forecast.importance_kept
    largest = gain(forecast_words.most_possible(forecast))
    return [
        Figure("Predicted speed-up", forecast_words.NOT_KNOWN, forecast.why_no_times, measured=False)
        if forecast.predicted_speedup is None
        else Figure("Predicted speed-up", gain(forecast.predicted_speedup), f"{dense} to {pruned} ms, a prediction"),
        Figure("Measured speed-up", NOT_MEASURED, forecast.why_not_measured, measured=False)
        if measured is None
        else Figure("Measured speed-up", f"{measured.speedup:.2f}x", forecast_words.measured_words(forecast)),
        Figure("Importance kept", "not known", "the criterion only selects within a group", measured=False)
        if kept is None
        else Figure("Importance kept", f"{100 * kept:.1f} %", f"most possible: {largest} at the fastest widths"),
    ]
