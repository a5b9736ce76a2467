"""The diagnosis of a retraining in the report: its parts and its words."""

from dataclasses import fields, replace
from typing import get_args

import pytest

from prunec.compiler.recovery.diagnosis import Diagnosis
from prunec.compiler.recovery.signs import DIVERGED, Signs
from prunec.compiler.recovery.verdicts import Verdict
from prunec.compiler.report.diagnosis_words import diagnosis_rows
from prunec.compiler.report.training_parts import DiagnosisPart, EvidencePart
from prunec.passes.unknown import Unknown
from tests.recovery.test_diagnosis import OVER_PRUNED


def words(verdict: Verdict, evidence: Signs = OVER_PRUNED, advice: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    return diagnosis_rows(DiagnosisPart.model_validate(Diagnosis(verdict, evidence, advice), from_attributes=True))


def test_the_report_has_every_number_of_the_evidence() -> None:
    assert set(EvidencePart.model_fields) == {field.name for field in fields(Signs)}


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_every_verdict_has_its_reason_in_numbers(verdict: Verdict) -> None:
    ((label, text),) = words(verdict)
    assert label == "Diagnosis"
    assert text.startswith(f"{verdict}: ")
    assert "points" in text


def test_what_was_missing_and_won_is_told_with_two_standard_errors() -> None:
    ((_, text),) = words("over-pruned")
    assert "a probe of 6 epochs from 0.05 to zero won -0.5 +- 2.0 points on the validation data" in text
    assert "8.0 +- 3.0 points are missing on the validation data, 14.0 +- 2.0 points on the training data" in text


def test_a_dense_network_that_may_know_the_validation_data_is_told() -> None:
    assert "may have been trained on" not in words("over-fitted")[0][1]
    knows = replace(OVER_PRUNED, dense_validation=OVER_PRUNED.dense_train)
    assert "the dense network may have been trained on the validation data" in words("over-fitted", knows)[0][1]


def test_without_a_probe_the_curve_or_its_absence_is_the_reason() -> None:
    diverged = replace(OVER_PRUNED, probe_gain=DIVERGED, probe_gain_train=DIVERGED)
    assert "a longer run would win 1.0 +- 4.0 points" in words("not known", diverged)[0][1]
    blind = replace(diverged, projected_gain=Unknown("too short."))
    assert "the probe diverged" in words("not known", blind)[0][1]
    assert "there was no probe" in words("not known", replace(blind, probe_epochs=0))[0][1]


def test_advice_stands_in_its_order() -> None:
    assert words("under-trained", advice=("first", "second"))[1:] == [("Advice 1", "first"), ("Advice 2", "second")]


def test_text_of_older_reports_stands_as_it_is() -> None:
    assert diagnosis_rows("converged: all is well") == [("Diagnosis", "converged: all is well")]
    assert diagnosis_rows(Unknown("not recorded.")) == []
