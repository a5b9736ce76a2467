"""What a report says of the retraining and its controls, in words: for the terminal and for report.html."""

from prunec.compiler.report import Control, Recovery, Report
from prunec.compiler.report_figures import percent


def retraining_rows(report: Report) -> list[tuple[str, str]]:
    """Label and value of every line; none where nothing was retrained."""
    recovery = report.recovery
    rows = [] if recovery is None else _recovery_rows(recovery)
    summary = report.runs_summary
    if len(report.runs) > 1 and summary.mean is not None and summary.standard_deviation is not None:
        spread = f"{percent(summary.mean)} in the mean of {len(report.runs)}, +- {100 * summary.standard_deviation:.2f}"
        rows.append((f"{report.accuracy.metric} by seed", spread))
    return rows + [(f"Control {control.name}", _control_words(control)) for control in report.controls]


def _recovery_rows(recovery: Recovery) -> list[tuple[str, str]]:
    why = f" ({recovery.schedule_reason})" if recovery.schedule_reason else ""
    rows = [("Retraining", f"{recovery.epochs} epochs of {recovery.schedule}{why}")]
    if recovery.diagnosis is not None:
        rows.append(("Diagnosis", recovery.diagnosis))
    if recovery.trainability_accuracy is not None:
        words = f"{percent(recovery.trainability_accuracy)} over {recovery.trainability_epochs} epochs"
        rows.append(("Trainability", f"{words} of {recovery.schedule}"))
    return rows


def _control_words(control: Control) -> str:
    accuracy = "not known" if control.accuracy is None else percent(control.accuracy)
    note = f" ({control.note})" if control.note else ""
    return f"{accuracy} after {control.epochs} epochs of {control.schedule}{note}"
