"""The decision of a pruning pass as plain data, and its application to the user's own module."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from prunec.passes.boundary import file_bytes, reading, shortened
from prunec.passes.errors import InputError
from prunec.passes.tensors import like, named_tensors

#: Layers of torch whose sizes `apply_plan` can correct.
SHRINKING = (
    nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm,
    nn.PReLU, nn.Embedding, nn.ParameterList,
)  # fmt: skip
#: Key of the sizes in code, beside the tensors' names, in a plan's JSON.
_SIZES_IN_CODE = "sizes_in_code"
_MAX_INDEX = 1 << 31


#: A plan that names every channel of a network of a billion parameters has some 50 MB.
_MAX_BYTES = 256 << 20


class SizesInCodeWarning(UserWarning):
    """The warning that some modules' own Python code holds sizes that a plan changes."""


def misfit(message: str) -> InputError:
    """The error to raise where a plan and a network don't fit."""
    return InputError(message, hint="Apply a plan to the network that it was made for.")


@dataclass(frozen=True)
class PruningPlan:
    """The decision of a pruning pass.

    Attributes:
        kept: Slices that stay, ``{parameter or buffer: {dimension: kept indices}}``, in the order in which they stand
            afterwards. Tensors and dimensions that aren't named stay whole.
        sizes_in_code: Modules whose own Python code may hold sizes that the plan changes, each with the operators
            that take them. Layers of torch hold theirs in attributes and are not named.
    """

    kept: dict[str, dict[int, list[int]]]
    sizes_in_code: dict[str, list[str]] = field(default_factory=dict, compare=False)

    def to_json(self) -> str:
        """Write JSON text, with the sizes in code under a key of their own; `from_json` is the inverse."""
        content = {**self.kept, **({_SIZES_IN_CODE: self.sizes_in_code} if self.sizes_in_code else {})}
        return json.dumps(content, separators=(",", ":"), sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read JSON text.

        Raises:
            InputError: The text is not a plan.
        """
        with reading("The pruning plan", hint='Expected JSON {"parameter": {"dimension": [kept indices]}}.'):
            raw: dict[str, dict[str, list[int]]] = json.loads(text)
            sizes = {path: [str(name) for name in names] for path, names in raw.pop(_SIZES_IN_CODE, {}).items()}
            kept = {
                name: {int(dim): _indices(f"{name}, dimension {dim}", ids) for dim, ids in dims.items()}
                for name, dims in raw.items()
            }
        return cls(kept, sizes)

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
        """The plan that does in one step what this one and then a later one, made for its result, do."""
        kept = {name: dict(dims) for name, dims in self.kept.items()}
        for name, dims in later.kept.items():
            for dim, indices in dims.items():
                first = kept.setdefault(name, {}).get(dim)
                kept[name][dim] = indices if first is None else [first[index] for index in indices]
        return PruningPlan(kept, {**self.sizes_in_code, **later.sizes_in_code})

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
        return PruningPlan({**self.kept, **ties}, self.sizes_in_code)

    def select(self, name: str, tensor: Tensor) -> Tensor:
        """The kept part of a tensor as a new tensor; the tensor itself where the plan doesn't name it.

        Raises:
            InputError: The plan names a dimension or an index that the tensor doesn't have.
        """
        dims = self.kept.get(name, {})
        value = tensor.detach()
        for dim, indices in dims.items():
            if not 0 <= dim < tensor.ndim or not indices or max(indices) >= tensor.shape[dim] or min(indices) < 0:
                raise misfit(
                    f"The plan doesn't fit {name}: it keeps {len(indices)} indices of dimension {dim}, "
                    f"and the tensor has shape {tuple(tensor.shape)}."
                )
            # NumPy reads a list of integers five times as fast as torch does.
            value = value.index_select(dim, torch.from_numpy(np.array(indices, dtype=np.int64)).to(tensor.device))
        return like(tensor, value) if dims else tensor

    def select_all(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The kept parts of tensors by name; names of one tensor stay names of one tensor."""
        first_names = {id(tensor): name for name, tensor in reversed(tensors.items())}
        selected = {name: self.select(name, tensors[name]) for name in first_names.values()}
        return {name: selected[first_names[id(tensor)]] for name, tensor in tensors.items()}


def _indices(where: str, stored: object) -> list[int]:
    """The kept indices of one dimension, or ValueError: each a whole number that isn't negative, and none twice."""
    if not isinstance(stored, list) or not all(type(index) is int and 0 <= index < _MAX_INDEX for index in stored):
        raise ValueError(f"{shortened(where)}: expected a list of whole numbers, each at least 0")
    if len(set(stored)) < len(stored):
        raise ValueError(f"{shortened(where)}: an index stands there twice")
    return stored


def apply_plan(module: nn.Module, plan: PruningPlan) -> None:
    """Prune the user's own module in place: slice its tensors and correct its modules' sizes.

    Sizes that stand in the module's own code (a ``view`` with a number in it) can't be corrected: a
    `SizesInCodeWarning` names the modules that may hold such, as the plan lists them.

    Args:
        module: A module of the class that the plan was made for; its weights may differ.
        plan: A plan that `PruneFilters` returned.

    Raises:
        InputError: The plan names tensors or indices that the module doesn't have.
    """
    tensors = named_tensors(module)
    plan = plan.for_ties(tensors)
    missing = [name for name in plan.kept if name not in tensors]
    if missing:
        names = ", ".join(missing[:3])
        raise misfit(f"The plan names {len(missing)} tensors that {type(module).__name__} doesn't have: {names}.")
    layers = {path: (owner, _planned(path, owner, plan)) for path, owner in module.named_modules()}
    for path, (owner, planned) in layers.items():
        # Its forward checks inputs against sizes that `_correct_sizes` doesn't know.
        if planned and type(owner).__module__.startswith("torch.nn.modules.") and not isinstance(owner, SHRINKING):
            raise InputError(
                f"The plan prunes {path}, a {type(owner).__name__}, whose sizes can't be changed in the module.",
                hint="Train the pruned program itself, or name this layer under freeze when pruning.",
            )
    selected = plan.select_all(tensors)
    for owner, planned in layers.values():
        if "weight" in planned:
            _correct_sizes(owner, tensors[planned["weight"]], plan.kept[planned["weight"]])
        elif planned and isinstance(getattr(owner, "num_features", None), int):
            owner.num_features = selected[next(iter(planned.values()))].shape[0]
        for leaf, name in planned.items():
            setattr(owner, leaf, selected[name])
    if plan.sizes_in_code:
        warnings.warn(_sizes_in_code_text(module, plan.sizes_in_code), SizesInCodeWarning, stacklevel=2)


def _sizes_in_code_text(module: nn.Module, sizes: Mapping[str, list[str]]) -> str:
    modules = dict(module.named_modules())
    named = [
        f"{path or 'the network itself'} ({type(modules[path]).__name__}: {', '.join(operators)})"
        for path, operators in sizes.items()
        if path in modules
    ]
    return (
        f"The plan changes sizes that may stand in the Python code of {len(named)} modules, which can't be corrected "
        f"there: {'; '.join(named)}. Take these sizes from the tensors in the code, or train the pruned program."
    )


def _planned(path: str, module: nn.Module, plan: PruningPlan) -> dict[str, str]:
    """Tensors of a module itself that the plan names: attribute -> name in the network."""
    leaves = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    names = {leaf: f"{path}.{leaf}" if path else leaf for leaf, _ in leaves}
    return {leaf: name for leaf, name in names.items() if name in plan.kept}


def _correct_sizes(module: nn.Module, weight: Tensor, kept: dict[int, list[int]]) -> None:
    """Bring a layer's size attributes in line with the indices by dimension that are kept of its dense weight."""
    size = {dim: len(kept[dim]) if dim in kept else weight.shape[dim] for dim in range(weight.ndim)}

    def remaining(groups: int) -> int:
        """Number of groups that stay: all of them, unless some group keeps none of its filters."""
        filters = weight.shape[0]
        whole_groups_go = 0 in kept and len({index // (filters // groups) for index in kept[0]}) < groups
        return groups * size[0] // filters if whole_groups_go else groups

    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = size[0], size[1]
    elif isinstance(module, nn.modules.conv._ConvNd):
        module.groups = remaining(module.groups)
        first, second = size[0], size[1] * module.groups
        module.in_channels, module.out_channels = (first, second) if module.transposed else (second, first)
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = size[0]
    elif isinstance(module, nn.GroupNorm):
        module.num_groups, module.num_channels = remaining(module.num_groups), size[0]
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        module.normalized_shape = tuple(size.values())
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = size[0], size[1]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = size[0]
