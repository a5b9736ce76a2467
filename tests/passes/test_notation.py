"""The grammar of named things with options; test_options.py has the round trips."""

import pytest

from prunec.passes.errors import UsageError
from prunec.passes.notation import Item, parse_items, print_item


def test_the_whole_grammar() -> None:
    text = 'a b{} c{x=1,y="two words",z=[p,"q r",[s]],w={k=v,"l m"=[]}} repeat{n=2}(d repeat{n=3}(e))'
    assert parse_items(text) == (
        Item("a"),
        Item("b"),
        Item("c", {"x": "1", "y": "two words", "z": ["p", "q r", ["s"]], "w": {"k": "v", "l m": []}}),
        Item("repeat", {"n": "2"}, (Item("d"), Item("repeat", {"n": "3"}, (Item("e"),)))),
    )
    assert parse_items("") == parse_items(" \n\t") == ()


def test_printed_values() -> None:
    options = {"a": True, "b": 0.5, "c": "two words", "d": [1, "x"], "e": {"k*": 2}, "f": ""}
    assert print_item("name", options) == 'name{a=true,b=0.5,c="two words",d=[1,x],e={k*=2},f=""}'
    assert print_item("name", {}) == "name"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a{x}", "expected '=' at position 3, before '}'"),
        ("a{x=1", "expected ',' at position 5, the end"),
        ("a{x=}", "expected a value at position 4"),
        ("a{x=1,x=2}", "'x' is given twice"),
        ("a{=1}", "expected the name of an option at position 2"),
        ("a)", r"expected the name of a step at position 1, before '\)'"),
        ("repeat{n=2} a", r"expected '\(' at position 12"),
        ("repeat{n=2}(a", r"expected '\)' at position 13, the end"),
        ('a{x="open', "a quote is not closed at position 4"),
        (r'a{x="\q"}', "the quoted value .* is not valid"),
        ("a{x=" + "[" * 70 + "]" * 70 + "}", "more than 64 brackets within each other"),
        ("repeat(" * 70 + "a" + ")" * 70, "more than 64 brackets within each other"),
    ],
)
def test_errors_say_where(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_items(text)
