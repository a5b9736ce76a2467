"""The decision of a pruning pass as plain data."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from prunec.passes.boundary import file_bytes, reading, shortened
from prunec.passes.errors import InputError, UsageError
from prunec.passes.tensors import like

#: Keys beside the tensors' names in a plan's JSON.
_SIZES_IN_CODE = "sizes_in_code"
_DENSE_SIZES = "dense_sizes"
_REWRITTEN_BY = "rewritten_by"
_REMOVED_BRANCHES = "removed_branches"
_RANKS = "ranks"
_MAX_INDEX = 1 << 31


#: A plan that names every channel of a network of a billion parameters has some 50 MB.
_MAX_BYTES = 256 << 20


def misfit(message: str) -> InputError:
    """The error to raise where a plan and a network don't fit."""
    return InputError(message, hint="Apply a plan to the network that it was made for.")


@dataclass(frozen=True)
class RemovedBranch:
    """A residual branch that goes as a whole.

    Attributes:
        name: Path of its last layer with a weight.
        tensors: Names of the parameters and buffers that go with it.
        zeroed: Those that make its value zero when they are zero, for a module whose code keeps it; none where that
            isn't known.
    """

    name: str
    tensors: tuple[str, ...]
    zeroed: tuple[str, ...] = ()


@dataclass(frozen=True)
class PruningPlan:
    """The decision of a pruning pass.

    Attributes:
        kept: Slices that stay, ``{parameter or buffer: {dimension: kept indices}}``, in the order in which they stand
            afterwards. Tensors and dimensions that aren't named stay whole.
        sizes_in_code: Modules whose own Python code may hold sizes that the plan changes, each with the operators
            that take them. Layers of torch hold theirs in attributes and are not named.
        rewritten_by: Passes that had rewritten the network's graph before, in order: the plan was made for the
            rewritten program, which is another one than the network's own code.
        removed_branches: Residual branches that go before any slice does, in the order in which they go. What ``kept``
            has of their tensors is for a module that keeps them.
        dense_sizes: Sizes before the plan of the dimensions that ``kept`` names and of the weights that ``ranks``
            names, by which a network is known as another one; those that aren't given aren't known.
        ranks: Rank of each weight that is decomposed, by its name, after slices went: two layers stand in the place of
            its one (`prunec.passes.factorizing`).
    """

    kept: dict[str, dict[int, list[int]]]
    sizes_in_code: dict[str, list[str]] = field(default_factory=dict, compare=False)
    rewritten_by: tuple[str, ...] = field(default=(), compare=False)
    removed_branches: tuple[RemovedBranch, ...] = ()
    dense_sizes: dict[str, dict[int, int]] = field(default_factory=dict, compare=False)
    ranks: dict[str, int] = field(default_factory=dict)

    @property
    def gone(self) -> dict[str, str]:
        """The branch that each tensor goes with, by the tensor's name."""
        return {name: branch.name for branch in self.removed_branches for name in branch.tensors}

    @property
    def cuts(self) -> "PruningPlan":
        """The plan of slices and ranks, for the network without the branches."""
        gone = self.gone
        kept = {name: dims for name, dims in self.kept.items() if name not in gone}
        return replace(self, kept=kept, removed_branches=()) if gone else self

    @property
    def is_empty(self) -> bool:
        """Whether it neither removes, reorders nor decomposes anything."""
        return not self.kept and not self.removed_branches and not self.ranks

    def to_json(self) -> str:
        """Write JSON text, with what is no tensor under keys of its own; `from_json` is the inverse."""
        branches = [asdict(branch) for branch in self.removed_branches]
        others = {
            _SIZES_IN_CODE: self.sizes_in_code,
            _REWRITTEN_BY: list(self.rewritten_by),
            _REMOVED_BRANCHES: branches,
            _DENSE_SIZES: self.dense_sizes,
            _RANKS: self.ranks,
        }
        content = {**self.kept, **{key: value for key, value in others.items() if value}}
        return json.dumps(content, separators=(",", ":"), sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read JSON text.

        Raises:
            InputError: The text is not a plan.
        """
        with reading("The pruning plan", hint='Expected JSON {"parameter": {"dimension": [kept indices]}}.'):
            raw: dict[str, dict[str, list[int]]] = json.loads(text)
            branches = tuple(map(_branch, raw.pop(_REMOVED_BRANCHES, ())))
            rewritten_by = tuple(str(name) for name in raw.pop(_REWRITTEN_BY, ()))
            sizes = {path: [str(name) for name in names] for path, names in raw.pop(_SIZES_IN_CODE, {}).items()}
            ranks = {str(name): _size(_RANKS, str(name), rank) for name, rank in raw.pop(_RANKS, {}).items()}
            known: dict[str, dict[str, int]] = raw.pop(_DENSE_SIZES, {})  # type: ignore[assignment]
            dense = {
                name: {
                    int(dim): _size(_DENSE_SIZES, f"{name}, dimension {dim}", size) for dim, size in sizes_of.items()
                }
                for name, sizes_of in known.items()
            }
            kept = {
                name: {int(dim): _indices(f"{name}, dimension {dim}", ids) for dim, ids in dims.items()}
                for name, dims in raw.items()
            }
        return cls(kept, sizes, rewritten_by, branches, dense, ranks)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a plan.json.

        Raises:
            InputError: The file can't be read, is larger than any plan, or is none.
        """
        content = file_bytes(path, _MAX_BYTES, f"The pruning plan {path}")
        with reading(f"The pruning plan {path}"):
            return cls.from_json(content.decode())

    def then(self, later: "PruningPlan") -> "PruningPlan":
        """The plan that does in one step what this one and then a later one, made for its result, do.

        Raises:
            UsageError: This one decomposes layers, and the later one is of the layers in their place.
        """
        if self.ranks and not later.is_empty:
            raise UsageError(
                "Layers were decomposed, and a later step removes, reorders or decomposes some: no plan tells that.",
                hint="Decompose once, behind what removes or reorders filters.",
            )
        kept = {name: dict(dims) for name, dims in self.kept.items()}
        for name, dims in later.kept.items():
            for dim, indices in dims.items():
                first = kept.setdefault(name, {}).get(dim)
                kept[name][dim] = indices if first is None else [first[index] for index in indices]
        return PruningPlan(
            kept,
            {**self.sizes_in_code, **later.sizes_in_code},
            self.rewritten_by or later.rewritten_by,
            (*self.removed_branches, *later.removed_branches),
            _dense_sizes(self, later),
            self.ranks or later.ranks,
        )

    def order(self) -> "PruningPlan":
        """The plan that is left once slices are removed: the order of those that don't stand in ascending order."""

        def ranks(indices: list[int]) -> list[int]:
            rank = {index: position for position, index in enumerate(sorted(indices))}
            return [rank[index] for index in indices]

        orders = {
            name: {dim: ranks(indices) for dim, indices in dims.items() if indices != sorted(indices)}
            for name, dims in self.kept.items()
        }
        return PruningPlan({name: dims for name, dims in orders.items() if dims})

    def for_ties(self, tensors: Mapping[str, Tensor]) -> "PruningPlan":
        """The plan under all names that the tensors it names have."""
        by_identity = {id(tensors[name]): dims for name, dims in self.kept.items() if name in tensors}
        ties = {name: by_identity[id(t)] for name, t in tensors.items() if id(t) in by_identity}
        known = {id(tensors[name]): sizes for name, sizes in self.dense_sizes.items() if name in tensors}
        sizes = {name: known[id(t)] for name, t in tensors.items() if id(t) in known}
        return replace(self, kept={**self.kept, **ties}, dense_sizes={**self.dense_sizes, **sizes})

    def check_size(self, name: str, dim: int, size: int) -> None:
        """Refuse a network in which a dimension has another size than in the one that the plan was made for.

        Raises:
            InputError: It has.
        """
        expected = self.dense_sizes.get(name, {}).get(dim, size)
        if size != expected:
            raise misfit(
                f"The plan was made for another network: dimension {dim} of {name} has {size} slices here, expected "
                f"{expected}."
            )

    def check_decomposed(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse a network in which a weight that is decomposed isn't there, or has another size.

        Raises:
            InputError: It isn't, or has.
        """
        for name in self.ranks:
            if name not in tensors:
                raise misfit(f"The plan decomposes {name}, which this network doesn't have.")
            for dim, size in enumerate(tensors[name].shape):
                self.check_size(name, dim, size)

    def select(self, name: str, tensor: Tensor) -> Tensor:
        """The kept part of a tensor as a new tensor; the tensor itself where the plan doesn't name it.

        Raises:
            InputError: The plan names a dimension or an index that the tensor doesn't have.
        """
        dims = self.kept.get(name, {})
        value = tensor.detach()
        for dim, indices in dims.items():
            if 0 <= dim < tensor.ndim:
                self.check_size(name, dim, tensor.shape[dim])
            if not 0 <= dim < tensor.ndim or not indices or max(indices) >= tensor.shape[dim] or min(indices) < 0:
                raise misfit(
                    f"The plan doesn't fit {name}: it keeps {len(indices)} indices of dimension {dim}, "
                    f"and the tensor has shape {tuple(tensor.shape)}."
                )
            # NumPy reads a list of integers five times as fast as torch does.
            value = value.index_select(dim, torch.from_numpy(np.array(indices, dtype=np.int64)).to(tensor.device))
        return like(tensor, value) if dims else tensor

    def select_all(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The kept parts of tensors by name, without those of branches that go; names of one tensor stay so."""
        gone = self.gone
        tensors = {name: tensor for name, tensor in tensors.items() if name not in gone}
        first_names = {id(tensor): name for name, tensor in reversed(tensors.items())}
        selected = {name: self.select(name, tensors[name]) for name in first_names.values()}
        return {name: selected[first_names[id(tensor)]] for name, tensor in tensors.items()}


def _dense_sizes(first: PruningPlan, later: PruningPlan) -> dict[str, dict[int, int]]:
    """Sizes before the first of two plans; where it cuts without telling the size, the later one can't know it."""
    sizes = {name: dict(dims) for name, dims in first.dense_sizes.items()}
    for name, dims in later.dense_sizes.items():
        cut = first.kept.get(name, {})
        sizes[name] = {dim: size for dim, size in dims.items() if dim not in cut} | sizes.get(name, {})
    return {name: dims for name, dims in sizes.items() if dims}


def _branch(stored: object) -> RemovedBranch:
    """A branch as JSON has it, or ValueError."""
    if not isinstance(stored, dict) or not isinstance(stored.get("name"), str):
        raise ValueError(f"{_REMOVED_BRANCHES}: expected a list of objects with a name")
    lists = {key: stored.get(key) for key in ("tensors", "zeroed")}
    for key, names in lists.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{_REMOVED_BRANCHES}, {shortened(stored['name'])}: {key} is no list of names")
    return RemovedBranch(stored["name"], tuple(lists["tensors"]), tuple(lists["zeroed"]))  # type: ignore[arg-type]


def _size(key: str, where: str, stored: object) -> int:
    """The size of a dimension or a rank, or ValueError: a whole number that isn't 0."""
    if type(stored) is not int or not 1 <= stored <= _MAX_INDEX:
        raise ValueError(f"{key}, {shortened(where)}: expected a whole number, at least 1")
    return stored


def _indices(where: str, stored: object) -> list[int]:
    """The kept indices of one dimension, or ValueError: each a whole number that isn't negative, and none twice."""
    if not isinstance(stored, list) or not all(type(index) is int and 0 <= index < _MAX_INDEX for index in stored):
        raise ValueError(f"{shortened(where)}: expected a list of whole numbers, each at least 0")
    if len(set(stored)) < len(stored):
        raise ValueError(f"{shortened(where)}: an index stands there twice")
    return stored
