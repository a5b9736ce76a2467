"""Optimal Brain Surgeon: single weights by the inverse of the loss's second derivatives, and the others' update."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.criteria.protocol import Per, Seen, Source, Statistic
from prunec.passes.errors import UsageError
from prunec.passes.places import METHOD, PRUNING

if TYPE_CHECKING:
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence

    #: Inverses of the blocks so far, (blocks, size, size), and the number of samples.
    _State = tuple[Tensor, int]


@dataclass(frozen=True)
class InverseHessian:
    """Inverse of the second derivatives of the loss by a weight, in blocks, by an update of rank 1 for each sample.

    With H = alpha + (1/P) sum over P samples of g g^T, g a sample's gradient, the inverse of H follows by updates of it
    (Hassibi and Stork, "Second Order Derivatives for Network Pruning", NIPS 1992). Of a weight
    (K, C, ...) all of it is one block where it has few elements, else each filter of the matrix K x CRS is, in equal
    parts where even that were too much; the last part is filled up with zeros.

    Attributes:
        images: Number P of samples; further ones aren't looked at. Where there are fewer, alpha counts for more, as if
            it were divided by their share.
        alpha: The number on the diagonal.
        whole_layer: Largest number of weights of a layer that is one block. As many second derivatives as one of these
            has are held of every larger layer at most.
    """

    images: int
    alpha: float
    whole_layer: int

    looks_at: ClassVar[Source] = "weight gradients"
    per: ClassVar[Per] = "sample"

    def update(self, state: "_State | None", seen: Seen) -> "_State | None":
        """Take in a sample's gradient; the inverses of the old state are reused. Vectors have no state."""
        import torch

        if seen.value.ndim < 2 or (state is not None and state[1] == self.images):
            return state
        gradient = self.blocks(seen.value)
        if state is None:
            blocks, size = gradient.shape
            start = torch.eye(size, dtype=torch.float64, device=gradient.device).repeat(blocks, 1, 1)
            state = start.div_(self.alpha), 0
        inverse, count = state
        products = torch.einsum("bij,bj->bi", inverse, gradient)
        divisor = self.images + (products * gradient).sum(1)
        inverse.baddbmm_((products / divisor[:, None])[:, :, None], products[:, None, :], alpha=-1)
        return inverse, count + 1

    def result(self, state: "_State | None") -> "Tensor | None":
        """The inverses of the blocks of H, float64 (blocks, size, size); None for vectors."""
        if state is None:
            return None
        inverse, count = state
        return inverse if count == self.images else inverse.mul_(count / self.images)

    def blocks(self, weight: "Tensor") -> "Tensor":
        """The elements of a weight (K, C, ...) as the blocks have them, float64 (blocks, size)."""
        from torch.nn.functional import pad

        rows = weight.detach().double().reshape(self._rows(weight), -1)
        size = self._size(weight)
        return pad(rows, (0, -rows.shape[1] % size)).reshape(-1, size)

    def joined(self, blocks: "Tensor", like: "Tensor") -> "Tensor":
        """The inverse of `blocks`, in the shape of a weight."""
        rows = blocks.reshape(self._rows(like), -1)
        return rows[:, : like.numel() // len(rows)].reshape(like.shape)

    def _rows(self, weight: "Tensor") -> int:
        return 1 if weight.numel() <= self.whole_layer else len(weight)

    def _size(self, weight: "Tensor") -> int:
        """Number of elements of a block."""
        row = weight.numel() // self._rows(weight)
        most = max(1, self.whole_layer**2 // weight.numel())
        return math.ceil(row / math.ceil(row / most))


@dataclass(frozen=True)
class OBS:
    """Change of the loss by zeroing a weight once the others have made up for it, w_q^2 / (2 [H^-1]_qq), which they
    then do (Hassibi and Stork, "Second Order Derivatives for Network Pruning", NIPS 1992).

    After Hassibi and Stork as read by prunec: H is alpha + the mean of g g^T over each sample's gradient g, and is
    block-diagonal by filter; a small layer is one block, the filters of a large one are several (`InverseHessian`). The
    paper zeroes one weight at a time. Here all weights of a mask are chosen by what each would cost alone, then the
    others of their block get the update that is best for all of these together: for one weight it is the paper's.
    ``repeat{n=10}(sparsify{criterion=obs,ratio_of_rest=0.2,...})`` chooses in rounds.

    It costs a forward and a backward pass of each of its images, one sample at a time, and rank-1 updates of blocks of
    n numbers, n operations a weight and image. It holds n numbers of 8 bytes for each weight: 134 MB for every layer of
    4,096 weights or more, however many images there are.

    Attributes:
        images: Number of samples that it looks at, at most those of the step (``samples``).
        alpha: Number on the diagonal of H.
        whole_layer: Largest number of weights of a layer whose second derivatives are looked at all together.
    """

    images: int = 128
    alpha: float = 1e-4
    whole_layer: int = 4096

    name: ClassVar[str] = "obs"
    paper: ClassVar[str] = "Hassibi and Stork, Second Order Derivatives for Network Pruning, NIPS 1992"
    reading: ClassVar[str] = (
        "as read by prunec: all weights of a mask are chosen by what each would cost alone, then the others "
        "of their block make up for all of them together; H is block-diagonal by filter"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients", "labels"})
    places: ClassVar[Mapping[str, str]] = {"images": PRUNING, "alpha": METHOD, "whole_layer": METHOD}

    def __post_init__(self) -> None:
        if self.images < 1 or self.whole_layer < 1:
            raise UsageError(f"obs: images and whole_layer are at least 1, got {self.images} and {self.whole_layer}.")
        if not 0 < self.alpha < float("inf"):
            raise UsageError(f"obs: alpha is {self.alpha}.", hint="It is a positive number, as 1e-4.")

    @property
    def hessian(self) -> InverseHessian:
        """What is measured."""
        return InverseHessian(self.images, self.alpha, self.whole_layer)

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The inverse of the second derivatives."""
        return (self.hessian,)

    def score_elements(self, weight: "Tensor", evidence: "Evidence") -> "Tensor":
        """The cost L_q of zeroing each weight, float64."""
        inverse: Tensor = evidence.of(self.hessian)
        costs = self.hessian.blocks(weight).square() / (2 * inverse.diagonal(dim1=1, dim2=2))
        return self.hessian.joined(costs, weight)

    def compensate_elements(self, weight: "Tensor", evidence: "Evidence", mask: "Tensor") -> "Tensor":
        """The weight whose kept elements make up best, to second order, for the masked ones of their block."""
        import torch

        inverse: Tensor = evidence.of(self.hessian)
        blocks, gone = self.hessian.blocks(weight), 1 - self.hessian.blocks(mask)
        # Of the masked elements M alone: [H^-1]_MM x = w_M, and the identity for the others.
        system = inverse * gone[:, :, None] * gone[:, None, :] + torch.diag_embed(1 - gone)
        shares = torch.linalg.solve(system, blocks * gone)
        new = blocks - torch.einsum("bij,bj->bi", inverse, shares)
        return self.hessian.joined(new, weight).to(weight.dtype) * mask
