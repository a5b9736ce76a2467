"""A small network with a batch norm behind every layer whose filters can go."""

from torch import Tensor, nn

from prunec.passes.program import Program
from tests.passes.checks import Net, captured, normal


def normed() -> Program:
    """A stream that three layers add to, depthwise and grouped convolutions within, and a hidden linear layer."""

    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.stem_norm(s.stem(x)).relu()
        y = (y + s.b_norm(s.b(s.depthwise_norm(s.depthwise(s.a_norm(s.a(y)).relu())).relu()))).relu()
        y = (y + s.d_norm(s.d(s.c_norm(s.c(y)).relu()))).relu()
        return s.head(s.hidden_norm(s.hidden(y.mean((2, 3)))).relu())  # type: ignore[no-any-return]

    layers: dict[str, nn.Module] = {
        "stem": nn.Conv2d(3, 8, 3, bias=False), "a": nn.Conv2d(8, 6, 1), "b": nn.Conv2d(6, 8, 1),
        "depthwise": nn.Conv2d(6, 6, 3, padding=1, groups=6), "c": nn.Conv2d(8, 8, 3, padding=1, groups=2),
        "d": nn.Conv2d(8, 8, 1),
    }  # fmt: skip
    norms: dict[str, nn.Module] = {f"{name}_norm": nn.BatchNorm2d(layer.out_channels) for name, layer in layers.items()}  # type: ignore[arg-type]
    linear: dict[str, nn.Module] = {
        "hidden": nn.Linear(8, 7),
        "hidden_norm": nn.BatchNorm1d(7),
        "head": nn.Linear(7, 5),
    }
    return captured(Net(forward, **layers, **norms, **linear), normal(2, 3, 8, 8))
