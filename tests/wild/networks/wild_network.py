"""What a network of the catalogue is, and how a family of networks is written down."""

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn

from tests.architectures.redraw import fit_statistics_, redraw_
from tests.wild.networks import environment

#: Seed of every network's weights.
SEED = 0


@dataclass(frozen=True)
class Built:
    """A network with what it's called with.

    Attributes:
        module: the network, in eval mode.
        args: its positional arguments, a batch of 2.
        kwargs: its keyword arguments, a batch of 2.
    """

    module: nn.Module
    args: tuple[object, ...]
    kwargs: dict[str, object]


@dataclass(frozen=True)
class WildNetwork:
    """A network that its package builds with random weights.

    Attributes:
        name: package and network, as "transformers/vit".
        package: name of the package, as it's imported.
        build: Imports the package and builds the network: every parameter and every running statistic is drawn anew
            with seed 0, and then those of batch norms are fitted to the arguments, as training would.
    """

    name: str
    package: str
    build: Callable[[], Built]


class Family:
    """Networks of one package, in the order in which they are added."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._networks: dict[str, WildNetwork] = {}

    @property
    def networks(self) -> Mapping[str, WildNetwork]:
        """By name."""
        return MappingProxyType(self._networks)

    def add(self, name: str) -> Callable[[Callable[[], Built]], Callable[[], Built]]:
        """Decorate the function that builds a network; it imports the package itself.

        Args:
            name: without that of the package.
        """

        def register(construct: Callable[[], Built]) -> Callable[[], Built]:
            full_name = f"{self._package}/{name}"
            if full_name in self._networks:
                raise ValueError(f"Two networks are named {full_name}.")
            self._networks[full_name] = WildNetwork(full_name, self._package, lambda: _build(construct))
            return construct

        return register


def called_with(module: nn.Module, *args: object, **kwargs: object) -> Built:
    """The network in eval mode, with the arguments of a batch of 2."""
    return Built(module.eval(), args, kwargs)


def _build(construct: Callable[[], Built]) -> Built:
    """Build a network and draw its weights anew: fresh ones are zeros or vanish in depth, and hide what is wrong.

    The copy is what runs to fit the statistics of batch norms, so that the network itself has never run.
    """
    environment.prepare()
    torch.manual_seed(SEED)
    with warnings.catch_warnings(action="ignore"):  # what the packages warn of is theirs
        built = construct()
        redraw_(built.module, SEED)
        twin = fit_statistics_(deepcopy(built.module), *deepcopy(built.args), **deepcopy(built.kwargs))
    built.module.load_state_dict(twin.state_dict())
    return built
