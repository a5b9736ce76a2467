"""Refusals of grids that can't be asked for."""

import pytest

from prunec.compiler.pipeline.pipeline import Pipeline, parse_pipeline
from prunec.compiler.stages.precision_checks import check_precision
from prunec.passes.errors import UsageError
from prunec.runtime.target import Target


def pipeline(hook: str) -> Pipeline:
    return parse_pipeline(f'recover{{epochs=1,schedule=constant:0.1,hooks="{hook}"}} calibrate')


@pytest.mark.parametrize(
    ("target", "form"),
    [("l4-int8", "symmetric"), ("cpu-int8", "affine"), ("h100-fp8", "float8"), ("l4-2:4-int8", "symmetric")],
)
def test_a_training_on_the_target_s_grids_passes_and_on_others_is_refused(target: str, form: str) -> None:
    for other in ("symmetric", "affine", "float8"):
        asked = pipeline(f"quantize{{form={other}}}")
        if other == form:
            check_precision(asked, Target.parse(target))
            continue
        with pytest.raises(UsageError, match=f"form {other}, and {Target.parse(target)} .* of {form}") as caught:
            check_precision(asked, Target.parse(target))
        assert caught.value.hint == f"Use quantize{{form={form}}}."


def test_weights_in_int4_have_no_grids_to_train_on() -> None:
    with pytest.raises(UsageError, match="on those of int4") as caught:
        check_precision(pipeline("quantize"), Target.parse("l4-int4"))
    assert "Leave the hook out" in (caught.value.hint or "")


def test_trainings_without_it_are_let_be() -> None:
    check_precision(parse_pipeline("recover{epochs=1,schedule=constant:0.1} calibrate"), Target.parse("cpu-int8"))
