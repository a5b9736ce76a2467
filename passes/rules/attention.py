"""Products of two tensors: matmul, einsum, attention. Axes that both share and the result lacks are summed over."""

import string
from typing import Any

from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Channels, Label, Ties, Value, parts, with_zero
from prunec.passes.rules.registry import rule

_NOT_TRACKED = "{operator} with values that are not tracked"


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
    added, result = ties.of(a["self"]), []
    for position in range(-len(product), 0):
        label = product[position]
        shape = a["self"].meta["shapes"]
        other = added[position] if -position <= len(added) and shape[position] != 1 else None
        if -position <= len(added) and shape[position] != 1:
            result.append(ties.meet(label, other, _NOT_TRACKED.format(operator="addmm")))
        else:
            result.append(with_zero(label, False))
    return tuple(result)


@rule("einsum")
def einsum(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Axes by letter; those that the result lacks are summed over."""
    equation = a["equation"].replace(" ", "")
    tensors = a["tensors"]
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")
    if "." in equation or "->" not in equation or any(len(set(term)) != len(term) for term in terms):
        for tensor in tensors:
            ties.freeze_value(ties.of(tensor), f"einsum {equation!r}")
        return (None,) * len(node.meta["shapes"])
    return _product(ties, node, list(zip(tensors, terms, strict=True)), output)


def _product(ties: Ties, node: Node, operands: list[tuple[Node, str]], output: str) -> tuple[Label, ...]:
    """Labels of a sum of products, with one letter for each axis of each operand."""
    reason = _NOT_TRACKED.format(operator=operator_name(node.target))
    met: dict[str, Label] = {}
    for letter in dict.fromkeys("".join(term for _, term in operands)):
        labels = [
            ties.of(tensor)[term.index(letter)]
            for tensor, term in operands
            if letter in term and not (letter in output and _size(tensor, term, letter) == 1)
        ]
        label = labels[0] if labels else None
        zero = any(found is not None and found.zero for found in labels)
        for other in labels[1:]:
            label = ties.meet(label, other, reason)
        met[letter] = with_zero(label, zero)
        if letter not in output:
            ties.sum_over(node, met[letter], operator_name(node.target))
    activations = [tensor for tensor, _ in operands if tensor.op != "get_attr"]
    if len(activations) == 2:
        _attention_axes(ties, met, [term for _, term in operands], output)
    return tuple(met[letter] for letter in output)


def _size(tensor: Node, term: str, letter: str) -> int:
    return int(tensor.meta["shapes"][term.index(letter)])


def _attention_axes(ties: Ties, met: dict[str, Label], terms: list[str], output: str) -> None:
    """Of a product of two activations: the axis summed over is a head's dimension, shared ones may count heads."""
    for letter, label in met.items():
        shared = all(letter in term for term in terms)
        for channels in parts(label) if shared else ():
            (ties.heads if letter in output else ties.head_dims).append(channels.atoms)
        if shared and ties.attention == "none":
            ties.freeze(label, "attention stays whole by option")


@rule("scaled_dot_product_attention")
def attention(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """(..., heads, tokens, head_dim) queries, keys, values; the scale stays what it was for the dense head_dim."""
    query, key, value = (ties.of(a[name]) for name in ("query", "key", "value"))
    operator = operator_name(node.target)
    reason = _NOT_TRACKED.format(operator=operator)
    if a.get("enable_gqa") and a["query"].meta["shapes"][-3] != a["key"].meta["shapes"][-3]:
        leading = [
            *_meet_all(ties, [query[:-3], key[:-3], value[:-3]], reason),
            _meet_groups(ties, query[-3], _meet_all(ties, [key[-3:-2], value[-3:-2]], reason)[0], reason),
        ]
    else:
        leading = _meet_all(ties, [query[:-2], key[:-2], value[:-2]], reason)
    head_dim = ties.meet(query[-1], key[-1], reason)
    summed = with_zero(head_dim, any(label is not None and label.zero for label in (query[-1], key[-1])))
    ties.sum_over(node, summed, operator)
    tokens = ties.meet(key[-2], value[-2], reason)
    ties.mix(node, tokens, operator)
    if a.get("scale") is None:
        ties.pin(node, "scale", a["query"].meta["shapes"][-1] ** -0.5, head_dim)
    if a.get("attn_mask") is not None:
        _meet_mask(ties, node, a["attn_mask"], [*leading, query[-2], tokens])
    for channels in (*parts(summed), *parts(value[-1])):
        ties.head_dims.append(channels.atoms)
    for label in leading:
        ties.heads.extend(channels.atoms for channels in parts(label))
    if ties.attention == "none":
        ties.freeze_value((*leading, head_dim, value[-1]), "attention stays whole by option")
    return (*leading, with_zero(query[-2], False), value[-1])


def _meet_groups(ties: Ties, queries: Label, keys: Label, reason: str) -> Label:
    """Heads of queries, several of which share one head of keys and values: they go together."""
    if not (isinstance(queries, Channels) and isinstance(keys, Channels)):
        ties.freeze(queries, reason)
        ties.freeze(keys, reason)
        return None
    ties.tie(queries.atoms.reshape(len(keys), -1), keys.atoms[:, None])
    return Channels(queries.atoms, keys.zero)


def _meet_all(ties: Ties, values: list[tuple[Label, ...]], reason: str) -> list[Label]:
    """Labels of leading axes that all tensors share; zero values make a zero result."""
    result = []
    for labels in zip(*values, strict=True):
        label = labels[0]
        for other in labels[1:]:
            label = ties.meet(label, other, reason)
        result.append(with_zero(label, labels[-1] is not None and labels[-1].zero))
    return result


def _meet_mask(ties: Ties, node: Node, mask: Node, labels: list[Label]) -> None:
    shape, value = mask.meta["shapes"], ties.of(mask)
    for position in range(-1, -len(shape) - 1, -1):
        if shape[position] != 1:
            ties.meet(labels[position], value[position], "attention mask over positions that are not tracked")
