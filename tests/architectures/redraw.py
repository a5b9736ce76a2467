"""Weights that hide nothing: fresh initialisations are full of zeros, ones and tiny scales.

Units that are dead on the test's inputs hide errors too: whatever is wrong before them is multiplied by zero. Biases
around 1 leave a few percent of such units in deep networks with ReLU.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
_BIAS_MEAN, _DEVIATION = 1.0, 0.2
#: Channels that hardly vary on a few inputs may do so on others.
_LEAST_VARIANCE = 0.1


@torch.no_grad()
def redraw_(module: M, seed: int) -> M:
    """Draw every parameter and every running statistic of a network anew, in place.

    Norm gains, layer scales and running variances are uniform in 0.5 .. 1.5; biases normal around 1, running means
    normal around 0; weights and embeddings normal with variance 1 / fan-in. Parameters shared by several modules are
    drawn once. Buffers of zeros stand for biases; others are constants of the architecture and stay.

    Args:
        module: any network.
        seed: Seed of all draws.

    Returns:
        The same module.
    """
    generator = torch.Generator().manual_seed(seed)
    done: set[int] = set()
    for owner in module.modules():
        for name, tensor in owner.named_parameters(recurse=False):
            if id(tensor) not in done:
                done.add(id(tensor))
                tensor.copy_(_parameter(owner, name, tensor, generator))
        for name, buffer in owner.named_buffers(recurse=False):
            if name == "running_mean":
                buffer.copy_(_normal(buffer, _DEVIATION, generator))
            elif name == "running_var":
                buffer.copy_(_near_one(buffer, generator))
            elif buffer.is_floating_point() and not buffer.any():
                buffer.copy_(_BIAS_MEAN + _normal(buffer, _DEVIATION, generator))
    return module


def _parameter(owner: nn.Module, name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if name.endswith("bias"):
        return _BIAS_MEAN + _normal(tensor, _DEVIATION, generator)
    is_weight = isinstance(owner, nn.modules.conv._ConvNd | nn.Linear)
    if not is_weight and tensor.numel() == max(tensor.shape, default=1):
        return _near_one(tensor, generator)  # one number per channel: a norm's gain, a layer scale
    if not is_weight and tensor.shape[0] == 1:
        fan_in = tensor.shape[-1]  # position embeddings: (1, positions, channels)
    else:
        filters = tensor.shape[1] if isinstance(owner, nn.modules.conv._ConvTransposeNd) else tensor.shape[0]
        fan_in = max(1, tensor.numel() // filters)
    return _normal(tensor, 1 / math.sqrt(fan_in), generator)


def _normal(like: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64) * deviation


def _near_one(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=torch.float64) + 0.5


@torch.no_grad()
def fit_statistics_(module: M, *args: object, **kwargs: object) -> M:
    """Fit the running statistics of batch norms to what they see, in place.

    Without it the outputs of deep networks overflow, or what tells one image from another drowns in the biases.

    Args:
        module: a network in eval mode whose statistics `redraw_` has drawn; they become relative to what is seen.
        args: positional arguments, with which it is called once.
        kwargs: keyword arguments of that call.

    Returns:
        The same module.
    """

    def fit(norm: nn.modules.batchnorm._BatchNorm, inputs: tuple[Tensor]) -> None:
        assert norm.running_mean is not None and norm.running_var is not None
        over = [axis for axis in range(inputs[0].ndim) if axis != 1]
        variance, mean = torch.var_mean(inputs[0], over, correction=0)
        variance.clamp_(min=_LEAST_VARIANCE)
        norm.running_mean.mul_(variance.sqrt()).add_(mean)
        norm.running_var.mul_(variance)

    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(fit) for norm in norms]
    module(*args, **kwargs)
    for hook in hooks:
        hook.remove()
    return module
