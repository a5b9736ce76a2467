"""Names of the methods that make a range of a histogram. Imports no torch."""

from typing import Literal, get_args

Method = Literal["min-max", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
