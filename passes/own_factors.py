"""A plan on the user's own module: two layers in the place of each that it decomposes."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from prunec.passes.errors import UnsupportedModelError
from prunec.passes.factors import factors, layer_of_factors
from prunec.passes.tensors import like

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def check_layers(module: nn.Module, ranks: Mapping[str, int]) -> None:
    """Refuse a plan whose decomposed layers aren't plain ones of torch within the module, which can be replaced.

    Raises:
        UnsupportedModelError: One isn't; it is named.
    """
    layers = dict(module.named_modules(remove_duplicate=False))
    for weight in ranks:
        path = layer_of_factors(weight).rstrip(".")
        layer = layers.get(path)
        if path and type(layer) in (nn.Linear, *_CONVOLUTIONS) and weight == f"{path}.weight":
            continue
        what = "it is the whole module" if not path else f"it is a {type(layer).__name__}, expected a layer of torch"
        if path and (layer is None or weight != f"{path}.weight"):
            what = f"{type(module).__name__} has no layer of torch there"
        raise UnsupportedModelError(
            f"The plan puts two layers in the place of {path or weight}, and {what}. The module is as it was.",
            hint="Train the decomposed program itself, or leave the layer out: decompose{ignore=[...]}.",
        )


def put_factors(module: nn.Module, ranks: Mapping[str, int]) -> None:
    """Put two layers in the place of each that a plan decomposes, in place; their weights are the old one's factors.

    Raises:
        InputError: A weight can't have the rank.
    """
    for weight, rank in ranks.items():
        parent, _, leaf = layer_of_factors(weight).rstrip(".").rpartition(".")
        owner = module.get_submodule(parent)
        setattr(owner, leaf, _two_of(weight, getattr(owner, leaf), rank))


def _two_of(name: str, layer: nn.Module, rank: int) -> nn.Sequential:
    """Both layers in the place of one, which is a convolution without groups or linear."""
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    kind: Any = type(layer)
    has_bias, options = layer.bias is not None, dict[str, Any]()
    kernels: tuple[tuple[Any, ...], tuple[Any, ...]] = (), ()
    if isinstance(layer, nn.Linear):
        inputs, filters = layer.in_features, layer.out_features
    else:
        inputs, filters, kernels = layer.in_channels, layer.out_channels, ((layer.kernel_size,), (1,))
        options = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")}
    first = kind(inputs, rank, *kernels[0], bias=False, device="meta", **options)
    second = kind(rank, filters, *kernels[1], bias=has_bias, device="meta")
    for each, value in zip((first, second), factors(name, layer.weight, rank), strict=True):
        each.weight = like(layer.weight, value)
    if has_bias:
        assert isinstance(layer.bias, nn.Parameter)
        second.register_parameter("bias", layer.bias)
    return nn.Sequential(first, second).train(layer.training)
