"""The diagnosis of a retraining in words."""

from prunec.compiler.recovery.verdicts import Verdict
from prunec.compiler.report.training_parts import DiagnosisPart, EstimatePart, EvidencePart
from prunec.passes.unknown import Unknown

_FIRST = "the training data"
_SECOND = "the validation data"


def diagnosis_rows(diagnosis: DiagnosisPart | str | Unknown) -> list[tuple[str, str]]:
    """Label and value of its lines: the verdict with its reason, and each piece of advice, the cheapest first."""
    if isinstance(diagnosis, Unknown):
        return []
    if isinstance(diagnosis, str):
        return [("Diagnosis", diagnosis)]
    rows = [("Diagnosis", f"{diagnosis.verdict}: {_reason(diagnosis)}")]
    return rows + [(f"Advice {number}", text) for number, text in enumerate(diagnosis.advice, 1)]


def _reason(diagnosis: DiagnosisPart) -> str:
    evidence = diagnosis.evidence
    gained, missing = _gained(evidence), _missing(evidence)
    fell = f"{evidence.fallen_points:.1f} points on {_SECOND}, {evidence.fallen_train_points:.1f} in training"
    scatter = evidence.scatter_points
    spread = f"{scatter:.1f} points" if isinstance(scatter, float) else "much"
    reasons: dict[Verdict, str] = {
        "under-trained": gained,
        "over-pruned": f"{gained}, and {missing}",
        "over-fitted": f"{gained}, and {missing}{_maybe_seen(evidence)}",
        "converged": missing,
        "noisy": f"accuracy on {_SECOND} scatters by {spread} from epoch to epoch; {gained}",
        "diverging": f"accuracy fell at the end, by {fell}",
        "not known": f"{missing}; {gained}; that doesn't tell clearly whether more training would help",
    }
    return reasons[diagnosis.verdict]


def _gained(evidence: EvidencePart) -> str:
    gain, gain_train = evidence.probe_gain, evidence.probe_gain_train
    if isinstance(gain, EstimatePart) and isinstance(gain_train, EstimatePart):
        rate = f" from {evidence.probe_learning_rate:.3g} to zero" if evidence.probe_epochs else ""
        return (
            f"a probe of {evidence.probe_epochs} epochs{rate} won {_points(gain)} on {_SECOND} and "
            f"{_points(gain_train)} on {_FIRST}"
        )
    if isinstance(evidence.projected_gain, EstimatePart):
        return f"by its learning curve a longer run would win {_points(evidence.projected_gain)} on {_SECOND}"
    return "there was no probe" if not evidence.probe_epochs else "the probe diverged"


def _missing(evidence: EvidencePart) -> str:
    words = f"{_points(evidence.missing)} are missing on {_SECOND}"
    if isinstance(evidence.missing_train, EstimatePart):
        words += f", {_points(evidence.missing_train)} on {_FIRST}"
    return words


def _maybe_seen(evidence: EvidencePart) -> str:
    """A network that is as good on the validation data as on those that it was trained on may have had both."""
    dense = evidence.dense_train
    if isinstance(dense, Unknown) or 100 * (dense - evidence.dense_validation) >= evidence.limit_points:
        return ""
    return f" (the dense network may have been trained on {_SECOND}: then less is missing)"


def _points(estimate: EstimatePart) -> str:
    return f"{estimate.points:.1f} +- {2 * estimate.standard_error:.1f} points"
