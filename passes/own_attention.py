"""torch's multi-head attention after pruning: its inner width is no longer that of what it reads."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


class PrunedMultiheadAttention(nn.MultiheadAttention):
    """An `nn.MultiheadAttention` whose heads became fewer or shorter, or whose inputs narrower.

    Tensors have the names that they had, so a ``state_dict`` of it is that of the pruned program. Products of queries
    and keys are scaled as in the dense network.

    Attributes:
        num_heads: Number of heads.
        widths: Rows of the input projection that make queries, keys and values.
        scale: Factor of the products of queries and keys.
    """

    widths: tuple[int, int, int]
    scale: float

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, with arguments and results as `nn.MultiheadAttention.forward` has them.

        ``is_causal`` is a hint that ``attn_mask`` is causal, as there; the mask counts.
        """
        is_batched = query.dim() == 3
        inputs = (query, key, value) if is_batched else tuple(x.unsqueeze(0) for x in (query, key, value))
        if is_batched and not self.batch_first:
            inputs = tuple(x.transpose(0, 1) for x in inputs)
        padding = key_padding_mask if is_batched or key_padding_mask is None else key_padding_mask.unsqueeze(0)
        q, k, v = self._heads(*self._extended(*self._projected(*inputs)))
        mask = self._mask(attn_mask, padding, q, k)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q * self.scale @ k.transpose(-2, -1)
            weights = functional.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            attended = weights @ v
        else:
            attended = functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        output = self.out_proj(attended.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not is_batched:
            return output.squeeze(0), weights if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights

    def _projected(self, *inputs: Tensor) -> list[Tensor]:
        """Queries, keys and values (N, T, width)."""
        joint: Tensor | None = self.in_proj_weight
        bias: Tensor | None = self.in_proj_bias
        separate = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        weights = separate if joint is None else torch.split(joint, list(self.widths))
        biases = (None,) * 3 if bias is None else torch.split(bias, list(self.widths))
        return [functional.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]

    def _extended(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """With the key and value that are learned, and those of zeros, where there are any."""
        samples = len(q)
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(samples, 1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(samples, 1, -1)], 1)
        if self.add_zero_attn:
            k, v = functional.pad(k, (0, 0, 0, 1)), functional.pad(v, (0, 0, 0, 1))
        return q, k, v

    def _heads(self, *tensors: Tensor) -> list[Tensor]:
        """(N, heads, T, width of a head)."""
        return [torch.unflatten(x, -1, (self.num_heads, -1)).transpose(1, 2) for x in tensors]

    def _mask(self, attention: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
        """What is added to the scores, which broadcasts to (N, heads, T, S); -inf where a mask of flags is True."""
        masks = []
        if attention is not None:
            is_by_head = attention.dim() == 3
            masks.append(torch.unflatten(attention, 0, (-1, self.num_heads)) if is_by_head else attention)
        if padding is not None:
            masks.append(padding[:, None, None, :])
        total = None
        for mask in masks:
            added = q.new_zeros(mask.shape).masked_fill(mask, float("-inf")) if mask.dtype == torch.bool else mask
            added = functional.pad(added, (0, k.shape[-2] - added.shape[-1]))  # learned keys and zeros count
            total = added if total is None else total + added
        return total


def become_pruned(attention: nn.MultiheadAttention, kept: Mapping[str, Mapping[int, list[int]]]) -> None:
    """Make an attention that is still dense a pruned one, in place; its tensors are sliced by the caller.

    Args:
        attention: The module, which stays the object that it is.
        kept: Indices that stay, by the attention's own names of its tensors and by dimension.
    """
    widths, scale = (attention.embed_dim,) * 3, (attention.embed_dim // attention.num_heads) ** -0.5
    if isinstance(attention, PrunedMultiheadAttention):
        widths, scale = attention.widths, attention.scale
    head_dim = widths[0] // attention.num_heads
    ranges = [range(sum(widths[:part]), sum(widths[: part + 1])) for part in range(3)]
    joint: Tensor | None = attention.in_proj_weight
    if joint is not None:
        first, weight = "in_proj_weight", joint
        rows = kept.get(first, {}).get(0, list(range(sum(widths))))
        parts = [[row - part.start for row in rows if row in part] for part in ranges]
    else:
        first, weight = "q_proj_weight", attention.q_proj_weight
        names = (first, "k_proj_weight", "v_proj_weight")
        parts = [kept.get(name, {}).get(0, list(range(size))) for name, size in zip(names, widths, strict=True)]
    attention.embed_dim = len(kept.get(first, {}).get(1, range(weight.shape[1])))
    attention.num_heads = len({row // head_dim for row in parts[0]})
    attention.head_dim = len(parts[0]) // attention.num_heads
    attention._qkv_same_embed_dim = False  # keeps torch's encoder layer from kernels of its own
    attention.__class__ = PrunedMultiheadAttention
    assert isinstance(attention, PrunedMultiheadAttention)
    attention.widths, attention.scale = (len(parts[0]), len(parts[1]), len(parts[2])), scale


#: Classes that `become_pruned` takes; a subclass of the user's has code of its own.
ATTENTION_LAYERS = (nn.MultiheadAttention, PrunedMultiheadAttention)
