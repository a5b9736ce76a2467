"""A network under test, of which every use gets a module that nothing has run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunec.passes.tensors import Inputs, copied_inputs, fingerprint, named_tensors
from tests.wild.networks import Built

_SEED = 0


@dataclass(frozen=True)
class Subject:
    """A network under test.

    Attributes:
        build: builds it.
        example: its arguments.
    """

    build: Callable[[], Built]
    example: Inputs

    def module(self) -> nn.Module:
        """A module that no code has run."""
        return self.build().module

    def inputs(self) -> Inputs:
        """Copies of the arguments, which a network may change."""
        args, kwargs = copied_inputs(self.example)
        return args, kwargs


def subject_of(build: Callable[[], Built]) -> Subject:
    """A network that is built the same again and again."""
    built, again = build(), build()
    assert not built.module.training, "the network isn't in eval mode"
    first, second = (fingerprint(named_tensors(each.module)) for each in (built, again))
    assert first == second, "built twice, the network has other weights"
    return Subject(build, (built.args, built.kwargs))


@torch.no_grad()
def outputs(network: Callable[..., Any], inputs: Inputs) -> Any:
    """What a network gives for inputs, of which it gets copies; torch's random state stays as it is."""
    args, kwargs = copied_inputs(inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return network(*args, **kwargs)
