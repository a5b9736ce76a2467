"""A plan on the user's own module: tensors are sliced, and the sizes that torch's layers hold are corrected."""

from dataclasses import replace

from torch import Tensor, nn

from prunec.passes.errors import InputError
from prunec.passes.own_attention import ATTENTION_LAYERS, become_pruned
from prunec.passes.own_factors import check_layers, put_factors
from prunec.passes.plan import PruningPlan, misfit
from prunec.passes.tensors import named_tensors

#: Layers of torch whose sizes `shrink` can correct by attributes.
SHRINKING = (
    nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm,
    nn.PReLU, nn.Embedding, nn.ParameterList, nn.ParameterDict,
)  # fmt: skip


def shrink(module: nn.Module, plan: PruningPlan) -> None:
    """Slice a module's tensors, correct the sizes of its layers, and decompose some, in place, or leave it as it is.

    Branches that the plan removes stay.
    An `nn.MultiheadAttention` becomes a `PrunedMultiheadAttention`.

    Raises:
        InputError: The plan names tensors or indices that the module doesn't have, or a layer of torch whose sizes
            can't be changed.
        UnsupportedModelError: It decomposes what is no plain layer of torch within the module.
    """
    tensors = named_tensors(module)
    plan.check_decomposed(tensors)
    check_layers(module, plan.ranks)
    plan = replace(plan.for_ties(tensors), removed_branches=())
    missing = [name for name in plan.kept if name not in tensors]
    if missing:
        names = ", ".join(missing[:3])
        raise misfit(f"The plan names {len(missing)} tensors that {type(module).__name__} doesn't have: {names}.")
    layers = {path: (owner, planned(path, owner, plan)) for path, owner in module.named_modules()}
    attention = {path: owner for path, (owner, _) in layers.items() if type(owner) in ATTENTION_LAYERS}
    for path, (owner, names_by_leaf) in layers.items():
        # Its forward checks inputs against sizes that `_correct_sizes` doesn't know.
        is_torchs = type(owner).__module__.startswith("torch.nn.modules.")
        if names_by_leaf and is_torchs and not isinstance(owner, (*SHRINKING, *ATTENTION_LAYERS)):
            raise InputError(
                f"The plan prunes {path}, a {type(owner).__name__}, whose sizes can't be changed in the module.",
                hint="Train the pruned program itself, or name this layer under freeze when pruning.",
            )
    selected = plan.select_all(tensors)
    for path, owner in attention.items():
        own = {name.removeprefix(f"{path}."): dims for name, dims in plan.kept.items() if name.startswith(f"{path}.")}
        if own:
            become_pruned(owner, own if path else plan.kept)
    for owner, names_by_leaf in layers.values():
        if isinstance(owner, SHRINKING) and "weight" in names_by_leaf:
            _correct_sizes(owner, tensors[names_by_leaf["weight"]], plan.kept[names_by_leaf["weight"]])
        elif names_by_leaf and isinstance(getattr(owner, "num_features", None), int):
            owner.num_features = selected[next(iter(names_by_leaf.values()))].shape[0]
        for leaf, name in names_by_leaf.items():
            setattr(owner, leaf, selected[name])
    put_factors(module, plan.ranks)


def planned(path: str, module: nn.Module, plan: PruningPlan) -> dict[str, str]:
    """Tensors of one module itself that the plan names: attribute -> name in the network."""
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
