"""Re-drawn weights hide nothing."""

from torch import nn

from tests.architectures.redraw import redraw_


def test_redrawn_tensors_hide_nothing() -> None:
    norm = nn.BatchNorm2d(8)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ConvTranspose2d(8, 4, 2), nn.PReLU(4))
    for tensor in network.state_dict().values():
        tensor.zero_()
    redraw_(network, seed=0)
    assert all(tensor.ne(0).all() for tensor in network.parameters())
    assert 0.5 <= norm.weight.min() <= norm.weight.max() <= 1.5
    statistics = dict(norm.named_buffers())
    assert 0.5 <= statistics["running_var"].min() <= statistics["running_var"].max() <= 1.5
    assert statistics["running_mean"].ne(0).all()
    first = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    again = redraw_(network, seed=0).state_dict()
    assert all(first[name].equal(again[name]) for name in first)
