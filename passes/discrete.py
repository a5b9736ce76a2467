"""Inputs that are numbers of things, as tokens are: no arithmetic on them means anything."""

import torch
from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program


def numbers_of_things(program: Program) -> tuple[bool, ...]:
    """For each input tensor whether it is of integers, or made integers before a layer computes something else of it.

    A real number can only reach an embedding or an index through such a cast.
    """
    inputs = [node for node in program.graph.find_nodes(op="placeholder") if node.meta.get("dtype") is not None]
    return tuple(_is_integer(node) or _becomes_integers(node) for node in inputs)


def _becomes_integers(source: Node) -> bool:
    reached, waiting = {source}, [source]
    while waiting:
        node = waiting.pop()
        for user in node.users.keys() - reached:
            if user.op != "call_function" or operator_name(user.target) in WEIGHTED:
                continue
            if _is_cast(node, user):
                return True
            reached.add(user)
            waiting.append(user)
    return False


def _is_cast(source: Node, node: Node) -> bool:
    """Whether each of real numbers becomes an integer; comparisons, counts and positions are something else."""
    dtype = source.meta.get("dtype")
    is_real = dtype is not None and dtype.is_floating_point
    return is_real and _is_integer(node) and source.meta["shapes"] == node.meta["shapes"]


def _is_integer(node: Node) -> bool:
    dtype = node.meta.get("dtype")
    return dtype is not None and dtype != torch.bool and not (dtype.is_floating_point or dtype.is_complex)
