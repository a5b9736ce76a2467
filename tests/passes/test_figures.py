"""What plug-ins tell, as values that JSON has a form for."""

from typing import Any

import numpy as np
import pytest
import torch

from prunec.passes.figures import plain_figures
from prunec.passes.unknown import Unknown


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(1.5), 1.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (torch.tensor(2), 2),
        ((1, (2,)), [1, [2]]),
        ({1: {2.5: "x"}}, {"1": {"2.5": "x"}}),
        (Unknown("nobody looked."), Unknown("nobody looked.")),
    ],
)
def test_what_json_has_a_form_for(value: Any, plain: Any) -> None:
    figure = plain_figures({"a": value})["a"]
    assert figure == plain
    assert type(figure) is type(plain)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "the figure is nan, which JSON has no form for."),
        (np.float64("-inf"), "the figure is -inf, which JSON has no form for."),
        (torch.zeros(2), "the figure is of type Tensor, which JSON has no form for."),
        ({1, 2}, "the figure is of type set, which JSON has no form for."),
        (10**5000, "the figure is of type int, which JSON has no form for."),
        ("\ud800", "the figure is of type str, which JSON has no form for."),
        (None, "nothing was told."),
    ],
    ids=["nan", "inf", "tensor", "set", "digits", "surrogate", "none"],
)
def test_what_json_has_no_form_for_is_unknown(value: object, words: str) -> None:
    assert plain_figures({"a": [value]})["a"] == [Unknown(words)]


def test_a_figure_that_holds_itself_ends_somewhere() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert "of type list" in str(plain_figures({"a": endless}))


def test_an_unknown_value_has_a_reason() -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        Unknown("")
