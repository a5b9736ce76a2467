"""Values that are known or not."""

from prunec.passes.unknown import Unknown, known, reason_of


def test_a_value_that_is_known() -> None:
    assert known(0.0) == 0.0
    assert reason_of(0.0) == ""


def test_a_value_that_is_not() -> None:
    assert known(Unknown("Nobody measured it.")) is None
    assert reason_of(Unknown("Nobody measured it.")) == "Nobody measured it."
