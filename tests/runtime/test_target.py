"""Targets: text form, what is refused and why, the device table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.passes.errors import UsageError
from prunec.runtime.devices import DEVICES, PRECISIONS
from prunec.runtime.target import PATTERNS, Target


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("a100-2:4", "a100-2:4-fp16"),
        ("l4-2:4-int8", "l4-2:4-int8"),
        ("h100-dense-fp16", "h100-dense-fp16"),
        ("A100", "a100-dense-fp16"),
        ("t4-int8", "t4-dense-int8"),
        ("cpu", "cpu"),
        ("cpu-int8", "cpu-int8"),
        ("l4-fp8", "l4-dense-fp8"),
        ("h100-2:4-fp8", "h100-2:4-fp8"),
        ("a100-int4", "a100-dense-int4"),
        ("cpu-dense-fp32", "cpu"),
    ],
)
def test_text_form(text: str, full: str) -> None:
    assert str(Target.parse(text)) == full


@given(st.sampled_from(sorted(DEVICES)), st.sampled_from(PATTERNS), st.sampled_from(PRECISIONS))
def test_str_and_parse_are_inverse(device: str, pattern: str, precision: str) -> None:
    try:
        target = Target(device, pattern, precision)
    except UsageError:
        return
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a10-2:5", "'2:5' is no pattern or precision"),
        ("b100-2:4", "Did you mean 'h100' or 'b200' or 'a100'"),
        ("a100-fp17", "Did you mean 'fp16'"),
        ("a100-fp16-2:4", "device-pattern-precision"),
        ("t4-2:4", "no sparse tensor cores"),
        ("cpu-2:4", "no sparse tensor cores"),
        ("a100-2:4-fp32", "don't compute in fp32"),
        ("t4-bf16", "has no bf16"),
        ("cpu-fp16", "has no fp16"),
        ("a100-fp8", "has no fp8"),
        ("t4-fp8", "has no fp8"),
        ("orin-fp8", "has no fp8"),
        ("t4-int4", "has no int4"),
        ("cpu-int4", "has no int4"),
        ("orin-int4", "has no int4"),
        ("l4-2:4-int4", "don't compute in int4"),
        ("cpu-fp8", "has no fp8"),
        ("", "Unknown device"),
    ],
)
def test_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Target.parse(text)
    assert caught.value.exit_code == 2


def test_fp8_is_for_devices_from_ada_on_and_others_are_told_which() -> None:
    have = [device.name for device in DEVICES.values() if "fp8" in device.precisions]
    assert have == ["l4", "l40s", "rtx40", "rtx50", "h100", "h200", "b200", "thor"]
    assert all((DEVICES[name].compute_capability or (0, 0)) >= (8, 9) for name in have)
    with pytest.raises(UsageError) as caught:
        Target.parse("a100-fp8")
    assert "fp8 is for l4, l40s, rtx40" in (caught.value.hint or "")
    assert {Target.parse(f"{name}-fp8").float_precision for name in have} == {"fp16"}


def test_sparse_peak_is_twice_the_dense_one() -> None:
    # A100: 312 TFLOPS dense, 624 with sparsity; 624 and 1248 TOPS INT8 (NVIDIA A100 data sheet).
    a100 = DEVICES["a100"]
    assert [a100.peak_tops(p, s) for p in ("fp16", "int8") for s in (False, True)] == [312, 624, 624, 1248]
    assert DEVICES["orin"].peak_tops("fp16", sparse=True) is None


@pytest.mark.parametrize(
    ("multiple", "targets"),
    [
        # ONNX Runtime blocks channels by 16 on x86-64.
        (16, "cpu cpu-int8"),
        # Tensor Cores: filters by 8, and inputs by 16 bytes (PTX ISA: mma.m16n8k4.tf32, m16n8k8.f16, m16n8k16.s8).
        (8, "a100 a100-bf16 a100-fp32 t4 h100 orin"),
        (16, "a100-int8 l4-int8 t4-int8 l4-fp8"),
        # Sparse ones sum over twice as many (mma.sp.m16n8k16.f16, m16n8k32.s8).
        (16, "a100-2:4 a100-2:4-bf16 l4-2:4 h100-2:4"),
        (32, "a100-2:4-int8 orin-2:4-int8 l4-2:4-fp8"),
        # Weights in int4 have blocks of 32 inputs at least.
        (32, "a100-int4"),
    ],
)
def test_widths_that_engines_compute_in(multiple: int, targets: str) -> None:
    assert {text: Target.parse(text).channel_multiple for text in targets.split()} == dict.fromkeys(
        targets.split(), multiple
    )


def test_every_gpu_names_the_source_of_its_figures() -> None:
    assert [d.name for d in DEVICES.values() if d.compute_capability is not None and not d.source] == []
