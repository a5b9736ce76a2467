"""The verdicts of a diagnosis. Imports no torch."""

from typing import Literal

Verdict = Literal["under-trained", "over-pruned", "over-fitted", "diverging", "noisy", "converged", "not known"]
