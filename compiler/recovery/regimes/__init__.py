"""Regimes: trainings that ready a network for a pruning, as training hooks, one method in each module."""
