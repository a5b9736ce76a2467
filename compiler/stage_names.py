"""Stages at which accuracy is measured, in their order. Imports nothing."""

STAGES = ("dense", "pruned", "sparse", "reestimated", "recovered", "exported", "engine")
