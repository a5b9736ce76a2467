"""Networks of the zoo, chosen so that they span its operators; `make zoo` checks all 70."""

import pytest

from tests.zoo.checks import Row, examine
from tests.zoo.corpus import BY_NAME, NETWORKS
from tests.zoo.report import markdown, summary

#: Of these the slower ones are checked among the long tests.
SLOW = ("timm:twins_svt_small", "timm:ghostnet_100", "timm:halonet26t", "timm:edgenext_xx_small", "timm:mobilevit_xxs")
SAMPLE = (
    "tv:squeezenet1_0",
    "tv:shufflenet_v2_x1_0",
    "timm:lcnet_050",
    "timm:ghostnet_100",
    "timm:skresnet18",
    "timm:convnextv2_atto",
    "timm:edgenext_xx_small",
    "timm:halonet26t",
    "timm:mixer_s32_224",
    "timm:deit_tiny_patch16_224",
    "timm:mobilevit_xxs",
    "timm:twins_svt_small",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in SLOW else []) for name in SAMPLE]
)
def test_network(name: str) -> None:
    row = examine(name, mutations=6)
    assert not row.failures
    assert row.cut > 0.5
    assert row.cut_exact <= row.cut


def test_the_corpus() -> None:
    assert len(BY_NAME) == len(NETWORKS) == 70
    assert {network.kind for network in NETWORKS} == {"cnn", "hybrid", "transformer", "mlp"}


def test_what_fails_is_a_row_and_counts_as_no_cut() -> None:
    rows = [
        Row("tv:alexnet", "cnn", cut=0.5, cut_exact=0.4),
        Row("tv:vgg16_bn", "cnn", cut=0.7, cut_exact=0.7, failures=["onnx: no | form"]),
    ]
    assert summary(rows) == [("cnn", 1, 2, 0.25, 0.2), ("all", 1, 2, 0.25, 0.2)]
    page = markdown(rows, mutations=20)
    assert "| cnn | 1 of 2 | 25.0 % | 20.0 % |" in page
    assert "tv:vgg16_bn (fails)" in page
    assert "- tv:vgg16_bn: onnx: no | form" in page
