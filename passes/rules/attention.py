"""Products of two tensors: matmul, einsum, attention. They sum over axes that both have and the result lacks."""

import string
from typing import Any

from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Channels, Label, Ties, Value, is_zero, not_tracked, parts, with_zero
from prunec.passes.rules.registry import rule


@rule("matmul", "bmm", "mm")
def matmul(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """(..., n, k) x (..., k, m); vectors have no n or m, leading axes broadcast."""
    left, right = a["self"], a["other"] if "other" in a else a["mat2"]
    names = string.ascii_lowercase[: len(node.meta["shapes"]) + 2]
    rank_left, rank_right = len(left.meta["shapes"]), len(right.meta["shapes"])
    batch = names[: max(rank_left, rank_right, 2) - 2]
    l_names = batch[len(batch) - max(rank_left - 2, 0) :] + ("yk" if rank_left > 1 else "k")
    r_names = batch[len(batch) - max(rank_right - 2, 0) :] + ("kz" if rank_right > 1 else "k")
    out = batch + ("y" if rank_left > 1 else "") + ("z" if rank_right > 1 else "")
    return _product(ties, node, [(left, l_names), (right, r_names)], out)


@rule("baddbmm", "addmm")
def addmm(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """A product plus a tensor of its shape, which meets it index by index."""
    first, second = (a["batch1"], a["batch2"]) if "batch1" in a else (a["mat1"], a["mat2"])
    names = ("byk", "bkz", "byz") if "batch1" in a else ("yk", "kz", "yz")
    product = _product(ties, node, [(first, names[0]), (second, names[1])], names[2])
    added, shape, result = ties.of(a["self"]), a["self"].meta["shapes"], list[Label]()
    for position, label in enumerate(product, start=-len(product)):
        if -position <= len(added) and shape[position] != 1:
            result.append(ties.meet(label, added[position], "addmm with values that are not tracked"))
        else:
            result.append(with_zero(label, False))
    return tuple(result)


@rule("einsum")
def einsum(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Axes have letters; the product sums over those that the result lacks."""
    tensors = a["tensors"]
    terms, output = einsum_terms(a["equation"], [len(tensor.meta["shapes"]) for tensor in tensors])
    if any(len(set(term)) != len(term) for term in terms):
        for tensor in tensors:
            ties.freeze_value(ties.of(tensor), f"a diagonal in einsum {a['equation']!r}")
        return (None,) * len(node.meta["shapes"])
    return _product(ties, node, list(zip(tensors, terms, strict=True)), output)


def einsum_terms(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """One letter for each axis of each operand and of the result; dots stand for axes that have none, from the right.

    >>> einsum_terms("...d, dk", [3, 2])
    (['ABd', 'dk'], 'ABk')
    """
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    dotted = [
        rank - len(term.replace("...", "")) if "..." in term else 0 for term, rank in zip(terms, ranks, strict=True)
    ]
    free = [letter for letter in string.ascii_uppercase if letter not in equation][: max(dotted)]
    expanded = [
        term.replace("...", "".join(free[len(free) - axes :])) for term, axes in zip(terms, dotted, strict=True)
    ]
    if not arrow:  # the letters that stand once, in order
        output = "..." + "".join(sorted(letter for letter in set(inputs) - set(".,") if inputs.count(letter) == 1))
    return expanded, output.replace("...", "".join(free))


def _product(ties: Ties, node: Node, operands: list[tuple[Node, str]], output: str) -> tuple[Label, ...]:
    """Labels of a sum of products, with one letter for each axis of each operand."""
    met: dict[str, Label] = {}
    for letter in dict.fromkeys("".join(term for _, term in operands)):
        labels = [
            ties.of(tensor)[term.index(letter)]
            for tensor, term in operands
            if letter in term and not (letter in output and tensor.meta["shapes"][term.index(letter)] == 1)
        ]
        met[letter] = with_zero(ties.meet_all(labels, not_tracked(node)), any(map(is_zero, labels)))
        if letter not in output:
            ties.sum_over(node, met[letter], operator_name(node.target))
    activations = [tensor for tensor, _ in operands if tensor.op != "get_attr"]
    if len(activations) == 2:
        _attention_axes(ties, met, [term for _, term in operands], output)
    return tuple(met[letter] for letter in output)


def _attention_axes(ties: Ties, met: dict[str, Label], terms: list[str], output: str) -> None:
    """Note the axes of attention: shared axes may count heads, the others are a head's dimension, that of the values
    among them.
    """
    for letter, label in met.items():
        shared = all(letter in term for term in terms)
        for channels in parts(label):
            (ties.heads if shared and letter in output else ties.head_dims).append(channels.atoms)
        if shared and ties.attention == "none":
            ties.freeze(label, "attention stays whole by option")


@rule("scaled_dot_product_attention")
def attention(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Queries, keys and values are (..., heads, tokens, head_dim); the scale stays that of the dense head_dim."""
    query, key, value = (ties.of(a[name]) for name in ("query", "key", "value"))
    operator, reason = operator_name(node.target), not_tracked(node)
    if a.get("enable_gqa") and a["query"].meta["shapes"][-3] != a["key"].meta["shapes"][-3]:
        leading = [
            *_meet_all(ties, [query[:-3], key[:-3], value[:-3]], reason),
            _meet_groups(ties, query[-3], _meet_all(ties, [key[-3:-2], value[-3:-2]], reason)[0], reason),
        ]
    else:
        leading = _meet_all(ties, [query[:-2], key[:-2], value[:-2]], reason)
    head_dim = ties.meet(query[-1], key[-1], reason)
    summed = with_zero(head_dim, is_zero(query[-1]) or is_zero(key[-1]))
    ties.sum_over(node, summed, operator)
    tokens = ties.meet(key[-2], value[-2], reason)
    ties.mix(node, tokens, operator)
    if a.get("scale") is None:
        ties.pin(node, "scale", a["query"].meta["shapes"][-1] ** -0.5, head_dim)
    if a.get("attn_mask") is not None:
        _meet_mask(ties, node, a["attn_mask"], [*leading, query[-2], tokens])
    ties.head_dims += [channels.atoms for channels in (*parts(summed), *parts(value[-1]))]
    ties.heads += [channels.atoms for label in leading for channels in parts(label)]
    if ties.attention == "none":
        ties.freeze_value((*leading, head_dim, value[-1]), "attention stays whole by option")
    return (*leading, with_zero(query[-2], False), value[-1])


def _meet_groups(ties: Ties, queries: Label, keys: Label, reason: str) -> Label:
    """Let the heads of queries that share one head of keys and values go together with it."""
    if not (isinstance(queries, Channels) and isinstance(keys, Channels)):
        ties.freeze(queries, reason)
        ties.freeze(keys, reason)
        return None
    ties.tie(queries.atoms.reshape(len(keys), -1), keys.atoms[:, None])
    return Channels(queries.atoms, keys.zero)


def _meet_all(ties: Ties, values: list[tuple[Label, ...]], reason: str) -> list[Label]:
    """Labels of leading axes that all tensors share; where the values are zero, so is the result."""
    return [with_zero(ties.meet_all(labels, reason), is_zero(labels[-1])) for labels in zip(*values, strict=True)]


def _meet_mask(ties: Ties, node: Node, mask: Node, labels: list[Label]) -> None:
    shape, value = mask.meta["shapes"], ties.of(mask)
    for position in range(-1, -len(shape) - 1, -1):
        if shape[position] != 1:
            ties.meet(labels[position], value[position], "attention mask over positions that are not tracked")
