"""Graph networks of PyTorch Geometric."""

from typing import Any

import torch
from torch import Tensor, nn

from tests.wild.networks.inputs import integers, numbers
from tests.wild.networks.wild_network import Built, Family, called_with

_FAMILY = Family("torch_geometric")
NETWORKS = _FAMILY.networks

_NODES, _FEATURES = 20, 16


class OneGraph(nn.Module):
    """A network for samples on one known graph, as those of sensors and roads are: (batch, nodes, features)."""

    def __init__(self, network: Any, edges: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("edges", edges)

    def forward(self, x: Tensor) -> Any:
        return self.network(x, self.edges)


def _edges() -> Tensor:
    """Random edges: int64 (2, 60)."""
    return integers(60, high=_NODES)


@_FAMILY.add("gcn")
def gcn() -> Built:
    from torch_geometric.nn import GCN

    return called_with(OneGraph(GCN(_FEATURES, 32, 3, 5), _edges()), numbers(_NODES, _FEATURES))


@_FAMILY.add("graph-sage")
def graph_sage() -> Built:
    from torch_geometric.nn import GraphSAGE

    return called_with(OneGraph(GraphSAGE(_FEATURES, 32, 2, 5, norm="layer"), _edges()), numbers(_NODES, _FEATURES))


class DenseGraphNetwork(nn.Module):
    """Graphs given as matrices, (batch, nodes, nodes): two convolutions and a pooling to a few clusters."""

    def __init__(self) -> None:
        super().__init__()
        from torch_geometric.nn import DenseGCNConv, DenseSAGEConv

        self.embed = DenseGCNConv(_FEATURES, 32)
        self.assign = DenseSAGEConv(_FEATURES, 6)
        self.read = DenseSAGEConv(32, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        from torch_geometric.nn import dense_diff_pool

        features = self.embed(x, adjacency).relu()
        features, adjacency, _, _ = dense_diff_pool(features, adjacency, self.assign(x, adjacency))
        logits: Tensor = self.head(self.read(features, adjacency).relu().mean(dim=1))
        return logits


@_FAMILY.add("dense-diff-pool")
def dense_diff_pool() -> Built:
    adjacency = (numbers(_NODES, _NODES, seed=1) > 1).to(torch.float32)
    adjacency = torch.maximum(adjacency, adjacency.mT)
    return called_with(DenseGraphNetwork(), numbers(_NODES, _FEATURES), adjacency)
