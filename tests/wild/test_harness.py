"""The harness of `make wild`: rows, figures, the table, and what counts as a right refusal."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.pages import write_section
from tests.wild import applying, batches, packages
from tests.wild.recording import Recording, Said
from tests.wild.report import drawn, failures_list, figures, figures_table, networks_table, section
from tests.wild.rows import STAGES, Outcome, Row, path_of, stored

WITH_PLAN = dict.fromkeys(STAGES, Outcome("ok"))


def rows(count: int, **changed: Outcome) -> list[Row]:
    """Networks of twelve packages at which all is well, but for the stages that are given."""
    return [Row(f"p{n % 12}/{n}", f"p{n % 12}", WITH_PLAN | changed, {"macs_cut": 0.5}) for n in range(count)]


def reached(known: list[Row], title: str) -> tuple[str, bool]:
    (figure,) = [f for f in figures(known, drawn([row.name for row in known])) if f.title == title]
    return figure.told, figure.is_met


def test_a_row_is_read_as_it_was_written(tmp_path: Path) -> None:
    row = Row("p/a b:c", "p", {"captured": Outcome("failed", "why | so", 1.5)}, {"macs_cut": 0.25}, "pruned", 2.5)
    row.write(tmp_path)
    assert Row.read(path_of(row.name, tmp_path)) == row
    Row("p/gone", "p").write(tmp_path)
    assert stored(tmp_path, {"p/a b:c", "p/other"}) == {row.name: row}
    assert row.failures == {"captured": "why | so"}


def test_every_bar_is_met_by_hundred_networks_at_which_all_is_well() -> None:
    assert all(figure.is_met for figure in figures(rows(100), frozenset(["p0/0"])))


@pytest.mark.parametrize(("title", "stage", "most"), [
    ("captured", "captured", 3),
    ("pruned right by the oracle", "oracle", 3),
    ("runs at batch 3", "batch", 7),
    ("float32 ONNX within 1e-4", "onnx", 3),
    ("fp16 form valid and within its tolerance", "fp16", 5),
    ("plan equal, or refused with the line", "applied", 0),
    ("plan equal, or refused with the line", "applied_for_module", 0),
    ("plan for the module equal", "applied_for_module", 25),
])  # fmt: skip
def test_a_bar_is_missed_with_one_failure_more_than_it_allows(title: str, stage: str, most: int) -> None:
    failing = {stage: Outcome("failed", "why")}
    assert reached(rows(100 - most) + rows(most, **failing), title) == (f"{100 - most} of 100, {100 - most}.0 %", True)
    assert reached(rows(99 - most) + rows(most + 1, **failing), title) == (
        f"{99 - most} of 100, {99 - most}.0 %",
        False,
    )


def test_what_is_not_reached_is_missed_and_networks_without_a_plan_need_none() -> None:
    known = [*rows(9), Row("p/x", "p", {"captured": Outcome("failed", "why")})]
    assert reached(known, "float32 ONNX within 1e-4") == ("9 of 10, 90.0 %", False)
    assert reached(known, "engine for an L4") == ("9 of 10, 90.0 %", False)
    assert reached(known, "plan equal, or refused with the line") == ("9 of 9, 100.0 %", True)


def test_refusals_with_the_line_are_right_and_not_equal() -> None:
    known = rows(1, applied=Outcome("said", "at view, a.py:3"), applied_for_module=Outcome("said", "at view, a.py:3"))
    assert reached(known, "plan equal, or refused with the line") == ("1 of 1, 100.0 %", True)
    assert reached(known, "plan for the module equal") == ("0 of 1, 0.0 %", False)


def test_bars_are_missed_where_nothing_is_known() -> None:
    bars = [figure for figure in figures([], frozenset()) if figure.bar and not figure.title.startswith("minutes")]
    assert not any(figure.is_met for figure in bars)


def test_forty_are_drawn_whatever_the_order_of_the_names() -> None:
    names = [f"p/{n}" for n in range(120)]
    assert len(drawn(names)) == 40
    assert drawn(names) == drawn(names[::-1]) < set(names)
    assert drawn(names[:7]) == set(names[:7])


def test_the_tables() -> None:
    known = [
        Row("p/a", "p", WITH_PLAN, {"macs_cut": 0.5, "macs_cut_for_module": 0.25}),
        Row("p/b", "p", {"captured": Outcome("ok"), "pruned": Outcome("failed", "a | b")}),
    ]
    assert "| p/a | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes | 50.0 % / 25.0 % |" in networks_table(
        known
    )
    assert "| p/b | yes | no | - | - | - | - | - | - | - | - | - |" in networks_table(known)
    assert failures_list(known) == "- p/b, pruned: a | b\n"
    assert "| captured | 2 of 2, 100.0 % | at least 97.0 % | met |" in figures_table(figures(known, frozenset()))
    assert "## 2 networks of 1 packages" in section(known, frozenset())


def test_a_section_is_replaced_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n<!-- one -->\nold\n<!-- end of one -->\nbetween\n<!-- two -->\n<!-- end of two -->\n")
    write_section(page, "one", "new \\1\n")
    write_section(page, "two", "other")
    one, two = "<!-- one -->\n\nnew \\1\n\n<!-- end of one -->", "<!-- two -->\n\nother\n\n<!-- end of two -->"
    assert page.read_text() == f"# Page\n{one}\nbetween\n{two}\n"
    with pytest.raises(ValueError, match="0 places for three"):
        write_section(page, "three", "text")


def test_what_comes_of_a_stage_is_noted(tmp_path: Path) -> None:
    def fail(error: Exception) -> Callable[[], None]:
        def step() -> None:
            assert Row.read(path_of("p/a", tmp_path)).running == "oracle"
            raise error

        return step

    recording = Recording(Row("p/a", "p"), tmp_path, {f"{tmp_path}/": ""})
    assert recording.attempt("captured", lambda: 3) == 3
    assert recording.attempt("oracle", fail(ValueError(f"one\n\ntwo {tmp_path}/x.py\nthree\nfour"))) is None
    assert recording.row.outcomes["oracle"].reason == "ValueError: one two x.py three"
    assert recording.attempt("oracle", fail(Said("at view"))) is None
    recording.repeat("oracle", "batch")
    row = Row.read(path_of("p/a", tmp_path))
    assert {stage: (o.verdict, o.reason) for stage, o in row.outcomes.items()} == {
        "captured": ("ok", ""), "oracle": ("said", "at view"), "batch": ("said", "at view")
    }  # fmt: skip


def test_a_right_refusal_names_an_operator_and_a_line_that_is_there() -> None:
    here = f"{__file__}:7 in forward(): 'x.view(2, 3)'"
    assert applying.names_a_line(f"it differs at view, {here}: it gives other values.")
    assert applying.names_a_line(f"it differs at view, reshape, {here}: it gives other values.")
    assert not applying.names_a_line(f"it differs at {here}: it doesn't run")
    assert not applying.names_a_line("it differs at view, /nowhere/model.py:7 in forward(): 'x'")
    assert not applying.names_a_line(f"it differs at view, {torch.__file__}:7 in forward(): 'x'")
    assert not applying.names_a_line("it differs at view, in encoder.0: it gives other values")


@pytest.mark.parametrize(("two", "three"), [
    ([[1.0], [2.0]], [[1.0], [2.0], [1.0]]),
    ([[1.0, 2.0]], [[1.0, 2.0, 1.0]]),
    ([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0, 1.0], [3.0, 4.0, 3.0], [1.0, 2.0, 1.0]]),
])  # fmt: skip
def test_rows_of_a_batch_of_three(two: list[list[float]], three: list[list[float]]) -> None:
    (expected,) = batches.expected_rows([torch.tensor(two)], [torch.tensor(three)])
    assert torch.equal(expected, torch.tensor(three))


def test_outputs_without_samples_say_nothing_of_a_batch() -> None:
    fixed: list[Tensor] = [torch.ones(2, 3)]
    with pytest.raises(AssertionError, match="no output has more rows"):
        batches.expected_rows(fixed, fixed)


def test_the_packages_are_pinned(tmp_path: Path) -> None:
    versions = {name: packages.pinned(path) for name, path in packages.REQUIREMENTS.items()}
    assert versions["site"]["transformers"] and versions["site_audio"].keys() == {"torchaudio"}
    assert not {"torch", "prunec"} & versions["site"].keys()
    (tmp_path / "requirements.txt").write_text("# why\nA_b.c==1.0  # and so\n\nd==2\n")
    assert packages.pinned(tmp_path / "requirements.txt") == {"a-b-c": "1.0", "d": "2"}
