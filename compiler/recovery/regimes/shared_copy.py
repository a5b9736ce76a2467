"""Copies of a network that stay equal to it while it trains, and take no part in its gradients."""

from prunec.passes.program import Program


def shared_copy(program: Program) -> Program:
    """A program in inference form over the very storage of another one's tensors, none of them trained."""
    detached = {id(tensor): tensor.detach() for tensor in program.tensors().values()}
    return program.with_tensors({name: detached[id(tensor)] for name, tensor in program.tensors().items()}).eval()
