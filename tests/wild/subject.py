"""A network under test: its weights made such that they hide nothing, and copies of it that nothing has run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunec.passes.tensors import Inputs, copied, copied_inputs, named_tensors
from tests.architectures.redraw import fit_statistics_, redraw_constants_
from tests.wild.networks.wild_network import Built

_SEED = 0


@dataclass(frozen=True)
class Subject:
    """A network under test.

    Attributes:
        build: builds it.
        tensors: its parameters and buffers, by name.
        example: its arguments.
    """

    build: Callable[[], Built]
    tensors: dict[str, Tensor]
    example: Inputs

    def module(self) -> nn.Module:
        """A module that no code has run."""
        module = self.build().module
        with torch.no_grad():
            for name, tensor in named_tensors(module).items():
                tensor.copy_(self.tensors[name])
        return module

    def inputs(self) -> Inputs:
        """Copies of the arguments, which a network may change."""
        args, kwargs = copied_inputs(self.example)
        return args, kwargs


def subject_of(build: Callable[[], Built]) -> Subject:
    """A network whose constant parameters are drawn at random, and whose running statistics fit what they see.

    Gains of one and biases of zero would hide what is computed wrongly.
    """
    built = build()
    assert not built.module.training, "the network isn't in eval mode"
    module = redraw_constants_(built.module, _SEED)
    args, kwargs = copied_inputs((built.args, built.kwargs))
    fit_statistics_(module, *args, **kwargs)
    return Subject(build, copied(named_tensors(module)), (built.args, built.kwargs))


@torch.no_grad()
def outputs(network: Callable[..., Any], inputs: Inputs) -> Any:
    """What a network gives for inputs, of which it gets copies; torch's random state stays as it is."""
    args, kwargs = copied_inputs(inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return network(*args, **kwargs)
