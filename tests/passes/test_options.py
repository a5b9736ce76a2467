"""Options from text and plain values: every type, every refusal, and back."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.passes.errors import UsageError
from prunec.passes.notation import parse_items, print_item
from prunec.passes.options import changed_options, converted, with_options


class Color(Enum):
    RED = "red"


@dataclass(frozen=True)
class Anything:
    value: Any = 1


@dataclass(frozen=True)
class Options:
    needed: int
    share: float = 0.5
    is_on: bool = False
    kind: Literal["one", "two"] = "one"
    seed: int | None = None
    globs: tuple[str, ...] = ()
    by_glob: float | Mapping[str, float] | None = None
    label: str = ""


OPTIONS = st.builds(
    Options,
    needed=st.integers(),
    share=st.floats(allow_nan=False),
    is_on=st.booleans(),
    kind=st.sampled_from(["one", "two"]),
    seed=st.integers(),
    globs=st.lists(st.text(), max_size=3).map(tuple),
    by_glob=st.floats(0, 1) | st.dictionaries(st.text(), st.floats(0, 1), min_size=1, max_size=3),
    label=st.text(),
)


@given(OPTIONS)
def test_what_is_printed_makes_the_same_options(options: Options) -> None:
    (item,) = parse_items(print_item("name", changed_options(options)))
    assert with_options(Options, "name", item.options) == options


def test_plain_values_and_hyphens() -> None:
    options = with_options(Options, "name", {"needed": 3, "is-on": True, "by-glob": {"a*": 1}, "globs": ["a", "b"]})
    assert options == Options(3, is_on=True, by_glob={"a*": 1.0}, globs=("a", "b"))
    assert changed_options(options) == {"needed": 3, "is_on": True, "globs": ("a", "b"), "by_glob": {"a*": 1.0}}
    assert changed_options(Options(0)) == {"needed": 0}


@pytest.mark.parametrize(
    ("value", "plain"), [(np.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(False), False), ([np.float64(2)], [2.0])]
)
def test_scalars_of_numpy_become_plain(value: object, plain: object) -> None:
    assert changed_options(Anything(value)) == {"value": plain}
    assert repr(changed_options(Anything(value))) == repr({"value": plain})


@pytest.mark.parametrize("value", [None, Color.RED, np.zeros(2), object(), {1, 2}, [None], {"a": None}])
def test_what_text_can_t_hold_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match=r"Anything: value is .*, which has no text form"):
        changed_options(Anything(value))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"name needs a value for needed\.\nFor example name\{needed=...\}"),
        ({"needed": "1", "shares": 1}, r"no option 'shares'\.\nDid you mean 'share'"),
        ({"needed": "1", "is-on": True, "is_on": True}, "is_on is given twice"),
        ({"needed": "many"}, "needed is 'many': expected a whole number"),
        ({"needed": True}, "needed is True: expected a whole number"),
        ({"needed": "1.5"}, "expected a whole number"),
        ({"needed": 1, "share": "half"}, "expected a number"),
        ({"needed": 1, "is-on": "perhaps"}, "is-on is 'perhaps': expected true or false"),
        ({"needed": 1, "kind": "three"}, "expected 'one' or 'two'"),
        ({"needed": 1, "seed": "x"}, "expected a whole number"),
        ({"needed": 1, "globs": "a"}, "expected a list of text"),
        ({"needed": 1, "by_glob": "x"}, "expected a number or a number by glob"),
    ],
)
def test_refusals_say_what_was_expected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        with_options(Options, "name", options)


def test_options_without_fields_and_defaults_that_are_made() -> None:
    @dataclass(frozen=True)
    class Nothing:
        pass

    @dataclass(frozen=True)
    class Made:
        names: list[str] = field(default_factory=list)

    assert with_options(Nothing, "name", {}) == Nothing()
    with pytest.raises(UsageError, match="name has no option 'a'"):
        with_options(Nothing, "name", {"a": 1})
    assert with_options(Made, "name", {}) == Made()
    assert changed_options(Made()) == {}
    assert changed_options(Made(["a"])) == {"names": ["a"]}


@pytest.mark.parametrize(
    "place", ["passes.fold:FoldParameters", "passes.permute:Permute", "calibration.batchnorm:ReestimateBatchNorm"]
)
def test_the_options_of_a_pass_are_made_without_torch(place: str) -> None:
    module, _, name = place.partition(":")
    code = (
        f"import sys; from prunec.passes.options import with_options; from prunec.{module} import {name}\n"
        f"with_options({name}, 'name', {{}}); assert not {{'torch', 'numpy', 'numba'}} & sys.modules.keys()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_conversion_names_the_place() -> None:
    assert converted("where", "3", int) == 3
    with pytest.raises(UsageError, match="where is 'x': expected a whole number"):
        converted("where", "x", int)
