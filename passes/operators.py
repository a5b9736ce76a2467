"""The operators that several modules must agree about, by their ATen names without namespace and overload."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightedOperator:
    """An operator that multiplies its input with a weight.

    Its kernel slides along ``spatial_dims`` axes, 0 for linear. The weight is (filters, inputs, ...), or where it is
    transposed (inputs, filters, ...).
    """

    name: str
    spatial_dims: int = 0
    is_transposed: bool = False

    @property
    def filter_dim(self) -> int:
        """Dimension of the weight that counts filters."""
        return 1 if self.is_transposed else 0


#: Every operator whose filters are pruned and whose MACs count, by its name.
WEIGHTED = {
    operator.name: operator
    for operator in (
        *(WeightedOperator(f"conv{n}d", n) for n in (1, 2, 3)),
        *(WeightedOperator(f"conv_transpose{n}d", n, is_transposed=True) for n in (1, 2, 3)),
        WeightedOperator("linear"),
    )
}
CONVOLUTIONS = tuple(name for name, o in WEIGHTED.items() if o.spatial_dims and not o.is_transposed)
TRANSPOSED_CONVOLUTIONS = tuple(name for name, o in WEIGHTED.items() if o.is_transposed)

#: Recurrent layers and cells, whose gates share one weight.
RECURRENT = (
    "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
)  # fmt: skip

#: Their argument ``train`` tells training from inference.
DROPOUTS = ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")

#: Calls of a graph that runs under another mode, with the position of that graph among their arguments.
REGIONS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}

#: Ranges of numbers, which become constants where their lengths are known.
RANGES = ("arange", "linspace")

#: They cut an axis into pieces and know one size for all pieces instead of each one's.
EVEN_SPLITS = ("split", "chunk", "unsafe_split", "unsafe_chunk")
