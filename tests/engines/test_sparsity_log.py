"""What the builder says of sparse kernels: lines of both log generations, and names of fused layers."""

import pytest

from prunec.runtime.engines.inspector import parse_engine_layers
from prunec.runtime.engines.sparsity_log import BuilderSparsity, parse_sparsity, parts
from tests.engines.fake_tensorrt import CHOSE, FOUND


@pytest.mark.parametrize("generation", [8, 10])
def test_both_generations_say_the_same(generation: int) -> None:
    found = FOUND[generation].format("conv1 + relu1, conv2, head", n=3)
    chose = CHOSE[generation].format("conv2", n=1)
    said = parse_sparsity(["[TRT] noise", found, "more noise", chose])
    assert said == BuilderSparsity(("conv1 + relu1", "conv2", "head"), ("conv2",))
    assert said.has_tried("conv1")
    assert not said.has_tried("conv3")
    assert said.has_chosen("conv2")
    assert not said.has_chosen("head")


def test_found_but_none_chosen() -> None:
    lines = [
        "(Sparsity) Found 2 layer(s) eligible to use sparse tactics: a, b",
        "(Sparsity) Chose 0 layer(s) using sparse tactics: ",
    ]
    assert parse_sparsity(lines) == BuilderSparsity(("a", "b"), ())


def test_the_last_pass_over_the_kernels_counts() -> None:
    lines = [FOUND[10].format("a", n=1), CHOSE[10].format("a", n=1), FOUND[10].format("a, b", n=2)]
    assert parse_sparsity(lines) == BuilderSparsity(("a", "b"), ())


def test_a_log_without_a_word_of_sparsity_is_no_answer() -> None:
    assert parse_sparsity(["Some tactics do not have sufficient workspace memory to run."]) is None


@pytest.mark.parametrize(
    ("layer", "nodes"),
    [
        ("node_conv", {"node_conv"}),
        ("node_conv + node_relu", {"node_conv", "node_relu"}),
        ("a + b || c", {"a", "b", "c"}),
        ("{ForeignNode[first...last]}", {"first", "last"}),
    ],
)
def test_names_of_fused_layers(layer: str, nodes: set[str]) -> None:
    assert parts(layer) == nodes


def test_layers_of_an_engine_with_detailed_verbosity_and_without() -> None:
    text = """{"Layers": [
        {"Name": "__myl_ConvRelu_0x1", "TacticName": "sm80_xmma_fprop_sparse_conv_f16",
         "Metadata": "[ONNX Layer: node_a]\\u001f[ONNX Layer: node_b]"},
        {"Name": "c + d"},
        "e + f"
    ]}"""
    layers = parse_engine_layers(text)
    assert [(layer.name, layer.nodes, layer.sparse_kernel) for layer in layers] == [
        ("__myl_ConvRelu_0x1", {"node_a", "node_b"}, True),
        ("c + d", {"c", "d"}, None),
        ("e + f", {"e", "f"}, None),
    ]
