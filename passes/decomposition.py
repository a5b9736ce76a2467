"""The pass that decomposes layers: which ranks they get, and what becomes of the program."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import floor, prod
from typing import TYPE_CHECKING, Any

from prunec.passes.allocation.joint import JointCompression, reach
from prunec.passes.allocation.scope import layer_names
from prunec.passes.base import Aim, PassResult
from prunec.passes.cost import Layer
from prunec.passes.errors import UsageError
from prunec.passes.factorizing import factorized, obstacles, with_ranks
from prunec.passes.factors import full_rank, rank_step, rank_that_saves, spectrum
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.ratios import check_globs, exact, matches
from prunec.passes.roles import expand_roles

if TYPE_CHECKING:
    from prunec.passes.low_rank import Decompose

_LEFT_OUT = "it is left out by ignore"


def decompose_layers(program: Program, options: "Decompose", ranks: Mapping[str, int] | None) -> PassResult:
    """Do what `Decompose.run` does, with the errors that it raises."""
    left = _left(program, options)
    layers = {layer.weight: layer for layer in program.layers() if not left[layer.weight]}
    asked = _asked_by_layer(program, options, layers, left)
    chosen = _chosen(program, options, layers, asked) if ranks is None else dict(ranks)
    result = factorized(program, chosen)
    plan = with_ranks(PruningPlan({}, rewritten_by=program.rewritten_by), program, chosen)
    stats = {
        "macs_dense": program.macs(),
        "macs": result.macs(),
        "layers": low_rank_layers(program, chosen),
        "left": {layer.name: left[layer.weight] for layer in program.layers() if left[layer.weight]},
    }
    aim = _aim(options, layers, asked, len(chosen), (program.macs(), result.macs()))
    return PassResult(result, bool(chosen), stats, plan, aim=aim)


def low_rank_layers(program: Program, ranks: Mapping[str, int]) -> list[dict[str, Any]]:
    """What is told of layers that are decomposed, as plain JSON values: ranks, and what they lose.

    Args:
        program: The program before they are, of which no slices go any more.
        ranks: Rank by the name of the weight.
    """
    tensors, rows = program.tensors(), []
    for layer in {layer.weight: layer for layer in program.layers() if layer.weight in ranks}.values():
        rank, energies = ranks[layer.weight], spectrum(layer.weight, tensors[layer.weight])
        whole = float(energies.sum())
        lost = float(energies[rank:].sum()) / whole if whole else 0.0
        told = {"layer": layer.name, "weight": layer.weight, "rank": rank, "full_rank": full_rank(layer.shape)}
        rows.append({**told, "lost": lost})
    return rows


def _left(program: Program, options: "Decompose") -> dict[str, str]:
    """Why each weight stays whole, by its name; empty where it may be decomposed."""
    names, ignore = layer_names(program), expand_roles(program.graph, options.ignore)
    check_globs(ignore, names, "ignore")
    ignored = {layer.weight for layer in program.layers() if matches([layer.name], ignore)}
    return {weight: reason or _LEFT_OUT * (weight in ignored) for weight, reason in obstacles(program).items()}


def _asked_by_layer(
    program: Program, options: "Decompose", layers: Mapping[str, Layer], left: Mapping[str, str]
) -> dict[str, float]:
    """The ratio or rank that is asked for, by the names of weights; none where a speed-up is."""
    asked = options.ratio if options.rank is None else options.rank
    if asked is None:
        return {}
    if not isinstance(asked, Mapping):
        return dict.fromkeys(layers, asked)
    check_globs(asked, layer_names(program), options.name)
    for glob in asked:
        named = {layer.name: left[layer.weight] for layer in program.layers() if fnmatchcase(layer.name, glob)}
        if all(named.values()):
            name, reason = next(iter(named.items()))
            raise UsageError(
                f"{options.name}: {name} can't be decomposed: {reason}.",
                hint="Convolutions without groups and linear layers can be, of weights of their own.",
            )
    matching = {weight: [asked[glob] for glob in asked if fnmatchcase(layers[weight].name, glob)] for weight in layers}
    return {weight: values[-1] for weight, values in matching.items() if values}


def _chosen(
    program: Program, options: "Decompose", layers: Mapping[str, Layer], asked: Mapping[str, float]
) -> dict[str, int]:
    """The ranks by the names of weights; layers that stay whole have none."""
    if options.speedup is not None:
        state = JointCompression(program, layers, None, options.round_to)
        reach(state, options.speedup)
        return state.ranks
    if options.rank is None:
        ranks = {name: _rank_of_share(layers[name], share, options.round_to) for name, share in asked.items()}
    else:
        named = isinstance(options.rank, Mapping)
        ranks = {name: _rank_as_asked(layers[name], int(rank), named=named) for name, rank in asked.items()}
    return {name: rank for name, rank in ranks.items() if rank}


def _rank_of_share(layer: Layer, share: float, round_to: int) -> int:
    """The largest rank by which a layer loses a share of its MACs, at least 1; 0 where no rank saves any."""
    filters, inputs, step = layer.shape[0], prod(layer.shape[1:]), rank_step(layer.shape, round_to)
    fitting = max(1, floor((1 - exact(share)) * filters * inputs / (filters + inputs)))
    rank = min(fitting, rank_that_saves(layer.shape)) if share else 0
    return rank // step * step or rank


def _rank_as_asked(layer: Layer, rank: int, *, named: bool) -> int:
    """A rank that a glob names as it is; one for all layers only where it saves anything, else 0."""
    if not named:
        return rank if rank <= rank_that_saves(layer.shape) else 0
    if rank > full_rank(layer.shape):
        raise UsageError(f"decompose: {layer.name} is to be of rank {rank}, and has at most {full_rank(layer.shape)}.")
    return rank


def _aim(
    options: "Decompose",
    layers: Mapping[str, Layer],
    asked: Mapping[str, float],
    decomposed: int,
    macs: tuple[int, int],
) -> Aim:
    """What was asked for, and what became of it: layers by ranks, else multiply-accumulates before and after."""
    before, after = macs
    saved = max(0.0, float(before - after))
    if options.speedup is not None:
        return Aim("MACs removed", before * (1 - 1 / options.speedup), saved)
    whole = len(asked) - decomposed
    reason = f"{whole} layers stay whole, since no such rank saves anything there" if whole else ""
    if options.rank is not None:
        return Aim("layers decomposed", len(asked), decomposed, reason)
    wanted = sum(share * layers[name].macs for name, share in asked.items())
    return Aim("MACs removed", wanted, saved, reason if saved < wanted else "")
