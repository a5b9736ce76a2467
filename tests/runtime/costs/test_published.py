"""Predictions against times that NVIDIA and others published: how far off they are is stated here, and held.

Nothing but the rows named in `FITTED` was used to choose the constants of the roofline.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from prunec.passes.costs.workload import Work
from prunec.passes.unknown import Unknown
from prunec.runtime.costs.roofline import roofline_costs
from prunec.runtime.target import Target
from tests.runtime.costs.networks import mobilenet_v2, resnet, transformer

NETWORKS: dict[str, Work] = {
    "ResNet-50": resnet((3, 4, 6, 3)).work(),
    "ResNet-101": resnet((3, 4, 23, 3)).work(),
    "MobileNetV2": mobilenet_v2().work(),
    **{
        f"BERT {size}, {tokens}": transformer(width, tokens, depth).work()
        for size, width, depth in (("Base", 768, 12), ("Large", 1024, 24))
        for tokens in (128, 384)
    },
}
#: Mean milliseconds under TensorRT: target, network, batch, ms.
#: MLPerf inference, closed division, NVIDIA: mean latency in mlperf_log_summary.txt of
#: https://github.com/mlcommons/inference_results_v3.0, closed/NVIDIA/results/{DGX-A100_A100-SXM-80GBx1,L4x1}_TRT/
#: resnet50/{SingleStream,MultiStream}/performance/run_1, and of inference_results_v0.7, T4x1_TRT, likewise.
MLPERF = (
    ("a100-int8", "ResNet-50", 1, 0.454689),
    ("a100-int8", "ResNet-50", 8, 0.643571),
    ("l4-int8", "ResNet-50", 1, 0.355504),
    ("l4-int8", "ResNet-50", 8, 0.798770),
    ("t4-int8", "ResNet-50", 1, 1.000135),
)
#: TensorRT 8.4 on an A100, https://docs.nvidia.com/deeplearning/tensorrt/tensorflow-quantization-toolkit/docs/docs/
#: model_zoo.html (post-training quantisation).
MODEL_ZOO = (("a100-int8", "ResNet-101", 1, 0.84), ("a100-int8", "MobileNetV2", 1, 0.30))
#: Paddle 2.3 with TensorRT 8.0, https://paddlepaddle.org.cn/inference/guides/benchmark/benchmark_gpu.html.
PADDLE = (
    ("t4", "MobileNetV2", 1, 0.5926),
    ("t4", "MobileNetV2", 2, 0.9131),
    ("t4", "MobileNetV2", 4, 1.4491),
    ("t4", "ResNet-50", 1, 1.3045),
    ("t4", "ResNet-50", 2, 1.8964),
    ("t4", "ResNet-50", 4, 3.1821),
    ("t4-fp32", "MobileNetV2", 1, 1.1125),
    ("t4-fp32", "MobileNetV2", 4, 2.819),
    ("t4-fp32", "ResNet-50", 1, 3.5244),
    ("t4-fp32", "ResNet-50", 4, 9.3702),
)
#: https://github.com/NVIDIA/TensorRT/blob/main/demo/BERT/README.md, TensorRT 8.4.3: batches 1, 8 and 128 in INT8, then
#: in FP16. The A100 there is the one of 40 GB, whose memory is a quarter slower.
BERT = {
    ("a100", "BERT Base, 128"): ((0.58, 0.95, 8.18), (0.67, 1.38, 16.14)),
    ("a100", "BERT Base, 384"): ((1.15, 2.22, 29.34), (1.31, 3.62, 51.26)),
    ("a100", "BERT Large, 128"): ((1.25, 2.71, 25.45), (1.64, 4.51, 51.61)),
    ("a100", "BERT Large, 384"): ((2.81, 7.16, 89.01), (3.12, 11.53, 163.70)),
    ("a30", "BERT Base, 128"): ((0.63, 1.45, 16.50), (0.89, 2.50, 33.58)),
    ("a30", "BERT Base, 384"): ((1.33, 4.23, 60.20), (1.70, 7.53, 107.15)),
    ("a30", "BERT Large, 128"): ((1.75, 4.26, 51.73), (2.14, 8.35, 108.52)),
    ("a30", "BERT Large, 384"): ((3.47, 12.76, 179.78), (4.57, 23.21, 342.30)),
    ("t4", "BERT Base, 128"): ((1.69, 4.66, 73.15), (1.95, 9.09, 144.20)),
    ("t4", "BERT Base, 384"): ((2.52, 14.56, 242.14), (4.04, 27.81, 458.76)),
    ("t4", "BERT Large, 128"): ((3.65, 14.56, 241.11), (5.53, 28.14, 482.84)),
    ("t4", "BERT Large, 384"): ((7.29, 49.24, 755.50), (12.45, 92.92, 1518.35)),
}
#: The same page, "Megatron Large with Sparsity": BERT Large with 2:4 weights, in INT8.
SPARSE = {
    ("a100", "BERT Large, 128"): (1.14, 3.05, 26.85),
    ("a100", "BERT Large, 384"): (1.71, 6.80, 84.89),
    ("a30", "BERT Large, 128"): (1.43, 4.78, 58.39),
    ("a30", "BERT Large, 384"): (2.70, 13.63, 185.37),
}
BATCHES = (1, 8, 128)
FITTED = {("a100-int8", "MobileNetV2", 1), ("a100-fp16", "BERT Large, 384", 128), ("t4-fp16", "BERT Large, 128", 128)}


def predicted_ms(target: str, network: str, batch: int) -> float:
    work, parsed = NETWORKS[network], Target.parse(target)
    sparse = frozenset(o.weight for o in work.operations) if parsed.sparse else frozenset[str]()
    costs = roofline_costs(parsed, batch, sparse)
    assert not isinstance(costs, Unknown)
    return float(costs.network_ms(work))


def published() -> Iterator[tuple[str, str, int, float]]:
    yield from (*MLPERF, *MODEL_ZOO, *PADDLE)
    for (device, network), precisions in BERT.items():
        for precision, times in zip(("int8", "fp16"), precisions, strict=True):
            yield from ((f"{device}-{precision}", network, batch, ms) for batch, ms in zip(BATCHES, times, strict=True))


def ratios(device: str = "") -> NDArray[np.float64]:
    """Predicted over measured, of the rows that no constant was chosen by."""
    rows = [row for row in published() if row[:3] not in FITTED and row[0].startswith(device)]
    return np.array([predicted_ms(*row[:3]) / row[3] for row in rows])


def error(found: NDArray[np.float64]) -> tuple[float, float, float]:
    """Geometric mean of the ratios; the factor by which they are off in the geometric mean; and at worst."""
    logarithms = np.log(found)
    off = np.abs(logarithms)
    mean, typical, worst = np.exp([logarithms.mean(), off.mean(), off.max()]).round(2).tolist()
    return mean, typical, worst


# docs/engines.md states these.
@pytest.mark.parametrize(
    ("device", "rows", "stated"),
    [
        ("", 86, (0.89, 1.19, 1.86)),
        ("a100", 26, (0.85, 1.18, 1.82)),
        ("a30", 24, (0.83, 1.20, 1.63)),
        ("t4", 34, (0.93, 1.17, 1.86)),
        ("l4", 2, (1.60, 1.60, 1.78)),
    ],
)
def test_the_error_of_predictions(device: str, rows: int, stated: tuple[float, float, float]) -> None:
    found = ratios(device)
    assert len(found) == rows
    assert error(found) == stated


def test_predicted_gain_of_two_four_is_more_than_was_measured() -> None:
    gains = [
        (
            predicted_ms(f"{device}-int8", network, batch) / predicted_ms(f"{device}-2:4-int8", network, batch),
            dense / ms,
        )
        for (device, network), times in SPARSE.items()
        for batch, dense, ms in zip(BATCHES, BERT[device, network][0], times, strict=True)
    ]
    predicted, measured = np.exp(np.log(gains).mean(axis=0))
    assert (round(predicted, 2), round(measured, 2)) == (1.12, 1.05)
