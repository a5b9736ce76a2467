"""Names of the methods that make a range of a histogram. Imports no torch."""

from typing import Literal, get_args

MethodName = Literal["min-max", "percentile", "entropy", "mse"]
RANGE_METHODS: tuple[MethodName, ...] = get_args(MethodName)
