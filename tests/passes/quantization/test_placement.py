"""What is put on grids: all that an INT8 kernel reads, and nothing that the network gives back."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from prunec.passes.errors import UsageError
from prunec.passes.graphs import arguments, calls, operator_name, unquantized
from prunec.passes.program import Program
from prunec.passes.quantization.attention import decompose_attention
from prunec.passes.quantization.placement import Placement, place
from prunec.passes.quantization.quantizers import quantizers
from prunec.passes.sparsify import Sparsify
from tests.architectures.densenet import DenseNet
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.resnet import cifar_resnet
from tests.architectures.vgg import vgg16_cifar
from tests.architectures.vit import ViT
from tests.fuzz.checking import random_program
from tests.passes.checks import Net
from tests.passes.quantization.observed import folded, on_grids


def reads(placement: Placement) -> set[tuple[str, str]]:
    """Every (reader, source) of a placement."""
    return {(reader, site.source) for site in placement.sites for reader in site.readers}


class Residual(nn.Module):
    """A residual sum, a concatenation of two branches and a mean, in front of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1)
        self.last, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (self.second(self.first(x).relu()) + x).relu()
        x = torch.cat([self.left(x).relu(), self.right(x).relu()], 1)
        logits: Tensor = self.head(self.last(x).relu().mean((2, 3)))
        return logits


def residual() -> Program:
    return folded(Residual(), 2, 3, 8, 8)


def test_both_inputs_of_a_residual_sum_are_on_grids() -> None:
    program = residual()
    (sum_,) = calls(program.graph, "add")
    sources = [arguments(sum_)[name].name for name in ("self", "other")]
    placement = place(program)
    assert {(sum_.name, source) for source in sources} <= reads(placement)
    families = {site.source: site.family for site in placement.sites}
    assert families[sources[0]] != families[sources[1]], "each has its own grid"


def test_a_concatenation_has_one_grid() -> None:
    program = residual()
    (joined,) = calls(program.graph, "cat")
    parts = [part.name for part in arguments(joined)["tensors"]]
    families = {site.source: site.family for site in place(program).sites}
    assert len({families[name] for name in (*parts, joined.name)}) == 1
    grids = {
        quantizer.grid for quantizer in quantizers(on_grids(program).graph)
        if quantizer.source.name in (*parts, joined.name)
    }  # fmt: skip
    assert len(grids) == 1


def test_a_shuffled_concatenation_keeps_its_grid() -> None:
    """As in ShuffleNet: what is split off behind it is on the grid of its parts already."""
    network = Net(
        lambda n, x: n.head(torch.cat([n.a(x), n.b(x)], 1).reshape(-1, 2, 4, 5, 5).transpose(1, 2).flatten(1, 2)
                            .chunk(2, 1)[0]),
        a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 4, 1), head=nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    families = {site.source: site.family for site in place(folded(network, 2, 3, 5, 5)).sites}
    assert len({family for source, family in families.items() if source != "x"}) == 1
    assert len(families) == 4


def test_every_layer_is_in_the_table_and_reads_grids() -> None:
    program = residual()
    placement = place(program)
    assert [row.layer for row in placement.layers] == [layer.name for layer in program.layers()]
    assert sum(row.macs for row in placement.layers) == program.macs()
    assert all(row.is_quantized and not row.reason for row in placement.layers)
    assert len(placement.weights) == len(program.layers())
    quantized = on_grids(program)
    for node in calls(quantized.graph, "conv2d", "linear"):
        for name in ("input", "weight"):
            assert unquantized(arguments(node)[name]) is not arguments(node)[name], (node, name)


def test_outputs_stay_as_they_are() -> None:
    program = folded(Net(lambda n, x: (n.a(x), n.b(n.a(x))), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1)), 2, 3, 5, 5)
    for sparse in (program, Sparsify().run(program).program):
        quantized = on_grids(sparse)
        for node in quantized.graph.output_node().all_input_nodes:
            assert operator_name(node.target) == "conv2d"


def test_kept_layers_read_floats_and_say_why() -> None:
    program = residual()
    placement = place(program, ("left", "classifier"))
    kept = {row.layer: row.reason for row in placement.layers if not row.is_quantized}
    assert kept == {"left": "kept by name", "head": "kept by name"}
    quantized = on_grids(program, kept=("left", "classifier"))
    for node in calls(quantized.graph, "conv2d", "linear"):
        is_kept = str(unquantized(arguments(node)["weight"]).target) in ("left.weight", "head.weight")
        for name in ("input", "weight"):
            assert (unquantized(arguments(node)[name]) is arguments(node)[name]) == is_kept
    with pytest.raises(UsageError, match=r"keep.*nowhere"):
        place(program, ("nowhere*",))


def test_sparse_layers_write_to_grids() -> None:
    """A 2:4 kernel of INT8 is chosen only where its output is INT8 too."""
    network = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Softmax(1), nn.Conv2d(16, 8, 1), nn.Sigmoid())
    dense = folded(network, 2, 8, 5, 5)
    sparse = Sparsify().run(dense).program
    assert {"0.weight", "3.weight"} <= sparse.masks.keys()
    added = reads(place(sparse)) - reads(place(dense))
    assert added == {("softmax", "relu"), ("sigmoid", "conv2d_1")}


def test_a_kept_layer_between_sparse_ones_reads_and_writes_no_grid() -> None:
    layers = nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 8, 1), nn.Sigmoid()
    dense = folded(nn.Sequential(*layers), 2, 8, 5, 5)
    sparse = Sparsify().run(dense).program
    assert {"0.weight", "2.weight", "4.weight"} <= sparse.masks.keys()
    of_second = {("conv2d_1", "relu"), ("sigmoid", "conv2d_1")}
    assert of_second <= reads(place(sparse))
    for kept, sensitive, reason in ((("2",), (), "kept by name"), ((), ("2",), "kept by sensitivity")):
        placement = place(sparse, kept, sensitive)
        assert not of_second & reads(placement)
        assert [layer.reason for layer in placement.layers] == ["", reason, ""]


class Attention(nn.Module):
    """Attention of a module, in front of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(16, 4, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))
        return y


def test_products_of_attention_are_kept_by_the_path_of_its_module() -> None:
    program = decompose_attention(folded(Attention(), 2, 6, 16)).program
    products = {node.name for node in calls(program.graph, "matmul")}
    assert len(products) == 2
    assert products <= {reader for reader, _ in reads(place(program))}
    for kept in (("attention",), ("att*",)):
        placement = place(program, kept)
        assert not products & {reader for reader, _ in reads(placement)}
        layers = {layer.layer: layer.is_quantized for layer in placement.layers}
        assert layers["head"]
        assert layers["attention.out_proj"] == (kept == ("attention",))
    everything = place(program, ("*",))
    assert (everything.sites, everything.weights) == ((), ())
    with pytest.raises(UsageError, match="keep"):
        place(program, ("attentions",))


def test_nothing_is_put_on_a_grid_for_sparse_layers_that_are_kept() -> None:
    layers = nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1)
    sparse = Sparsify().run(folded(nn.Sequential(*layers), 2, 4, 9, 9)).program
    assert {"2.weight", "4.weight"} <= sparse.masks.keys()
    assert ("group_norm", "conv2d_1") in reads(place(sparse))
    assert ("group_norm", "conv2d_1") not in reads(place(sparse, ("2",)))
    assert place(sparse, ("*",)).sites == ()


def test_paths_of_sensitive_layers_are_no_globs_and_no_roles() -> None:
    network = Net(lambda n, x: n.classifier(n.stem(x)), stem=nn.Conv2d(3, 4, 1), classifier=nn.Conv2d(4, 4, 1))
    placement = place(folded(network, 2, 3, 5, 5), (), ("stem", "cl*"))
    assert {layer.layer: layer.is_quantized for layer in placement.layers} == {"stem": False, "classifier": True}


def test_nothing_without_a_layer_is_on_a_grid() -> None:
    program = folded(Net(lambda n, x: (x + x.relu()).softmax(1).mean((2, 3))), 2, 3, 4, 4)
    assert place(program) == Placement((), (), ())


def test_recurrent_layers_have_no_such_kernel() -> None:
    program = folded(Net(lambda n, x: n.head(n.lstm(x)[0]), lstm=nn.LSTM(4, 6), head=nn.Linear(6, 2)), 5, 2, 4)
    rows = place(program).layers
    assert [(row.operator, row.is_quantized, row.reason) for row in rows] == [
        ("lstm", False, "no 8-bit kernel"), ("lstm", False, "no 8-bit kernel"), ("linear", True, ""),
    ]  # fmt: skip


def test_a_layer_that_reads_no_activation_stays() -> None:
    network = Net(
        lambda n, x: n.head(x) * n.gate(n.token), head=nn.Linear(4, 3), gate=nn.Linear(4, 3),
        token=nn.Parameter(torch.randn(1, 4)),
    )  # fmt: skip
    rows = {row.layer: row for row in place(folded(network, 2, 4)).layers}
    assert rows["head"].is_quantized
    assert "gate" not in rows or rows["gate"].reason == "its input is no activation"


def test_a_shared_layer_is_quantized_in_every_call() -> None:
    network = Net(lambda n, x: n.conv(n.conv(x).relu()), conv=nn.Conv2d(4, 4, 1))
    quantized = on_grids(folded(network, 2, 4, 5, 5))
    weights = {arguments(node)["weight"] for node in calls(quantized.graph, "conv2d")}
    assert len(weights) == 1, "one grid for all calls"
    assert all(row.is_quantized for row in place(folded(network, 2, 4, 5, 5)).layers)


@pytest.mark.parametrize(
    "network",
    [cifar_resnet(8), DenseNet((2, 2), growth=4), mobilenet_v2(), vgg16_cifar(), ViT(16, 4, 24, 2, 3, 5)],
    ids=["resnet", "densenet", "mobilenet", "vgg", "vit"],
)
def test_whole_networks_compute_all_layers_on_grids(network: nn.Module) -> None:
    size = 16 if isinstance(network, ViT) else 32
    placement = place(folded(network, 2, 3, size, size))
    assert all(row.is_quantized for row in placement.layers)


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed: int) -> None:
    """Every layer has its row, sites stand in their order, concatenations have one grid, outputs are free."""
    program = random_program(seed).single()
    placement = place(program)
    assert [row.layer for row in placement.layers] == [layer.name for layer in program.layers()]
    order = {node.name: position for position, node in enumerate(program.graph.nodes)}
    positions = [order[site.source] for site in placement.sites]
    assert positions == sorted(set(positions))
    assert all(site.readers and set(site.readers) <= order.keys() for site in placement.sites)
    graph = on_grids(program).graph
    grids = {quantizer.node: quantizer.grid for quantizer in quantizers(graph)}
    for node in calls(graph, "cat"):
        assert len({grids.get(part) for part in arguments(node)["tensors"]}) == 1, node
    assert not grids.keys() & set(graph.output_node().all_input_nodes)


@pytest.mark.parametrize("seed", range(12))
def test_kept_layers_add_no_sites(seed: int) -> None:
    """One pass over the data for the whole placement tells the ranges of any with fewer layers."""
    program = Sparsify().run(random_program(seed).single()).program
    everything = {site.source for site in place(program).sites}
    names = [layer.name for layer in program.layers()]
    for kept in ((names[0],), (names[-1],), tuple(names[::2]), tuple(names)):
        assert {site.source for site in place(program, kept).sites} <= everything


def test_weights_that_are_computed_of_the_input_stay_in_higher_precision() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        y = net.stem(x)
        return net.last(nn.functional.conv2d(y, y.mean((0, 2, 3))[:, None, None, None].expand(8, 8, 1, 1)))

    program = folded(Net(forward, stem=nn.Conv2d(3, 8, 1), last=nn.Conv2d(8, 4, 1)), 2, 3, 5, 5)
    rows = [row for row in place(program).layers if not row.is_quantized]
    assert [row.reason for row in rows] in ([], ["its weight is computed of the input"])
    assert on_grids(program)(torch.randn(2, 3, 5, 5)).shape == (2, 4, 5, 5)


def _assigned(net: Net, x: Tensor) -> Tensor:
    y = net.stem(x)
    y[:, :2] = 0.0
    return net.last(y)  # type: ignore[no-any-return]


def _through_a_view(net: Net, x: Tensor) -> Tensor:
    y = net.stem(x)
    y.flatten(2)[:, :, 0].fill_(50.0)
    return net.last(y)  # type: ignore[no-any-return]


def _added_in_place(net: Net, x: Tensor) -> Tensor:
    y = net.stem(x)
    z = net.second(x)
    y += z
    return net.last(y) + net.third(y.relu())  # type: ignore[no-any-return]


def _read_before_and_after(net: Net, x: Tensor) -> Tensor:
    y = net.stem(x)
    before = net.third(y)
    y.mul_(3.0)
    return before + net.last(y)  # type: ignore[no-any-return]


@pytest.mark.parametrize("forward", [_assigned, _through_a_view, _added_in_place, _read_before_and_after])
def test_what_is_written_to_in_place_is_read_as_it_is_then(forward: Callable[[Net, Tensor], Tensor]) -> None:
    layers = {name: nn.Conv2d(3, 8, 1) for name in ("stem", "second")} | {
        name: nn.Conv2d(8, 4, 1) for name in ("third", "last")
    }
    torch.manual_seed(0)
    program = folded(Net(forward, **layers), 2, 3, 6, 6)
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        expected = program(x)
        error = (on_grids(program)(x) - expected).norm() / expected.norm()
    assert error < 0.03


def test_an_output_behind_an_activation_of_a_sparse_layer_is_left_alone() -> None:
    def forward(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        y = net.first(x)
        return y.relu(), net.last(y.sigmoid())

    program = folded(Net(forward, first=nn.Conv2d(16, 16, 1), last=nn.Conv2d(16, 4, 1)), 2, 16, 5, 5)
    sparse = Sparsify().run(program).program
    of_first = next(name for name in (node.name for node in calls(sparse.graph, "conv2d")))
    assert of_first not in {source for _, source in reads(place(sparse))}
