"""Values that no node with a weight yields: known by the name of what they compute."""

from onnx import TensorProto, helper

from prunec.runtime.costs.attribution import value_owners


def test_a_layer_whose_weight_is_computed_is_known_by_its_value() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["conv"], "n0"),
        helper.make_node("Mul", ["g", "v"], ["weight"], "n1"),
        helper.make_node("Conv", ["conv", "weight"], ["conv_1"], "n2"),
        helper.make_node("Relu", ["conv_1"], ["relu"], "n3"),
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "g", [value], [])
    weights, computed = ["", "a.weight", "mul"], {"x": 0, "conv": 1, "conv_1": 2, "relu": 2}
    owners = value_owners(graph, weights, computed)
    assert (owners["conv"], owners["conv_1"], owners["relu"]) == (1, 2, 2)
    assert value_owners(graph, weights)["relu"] == 1
