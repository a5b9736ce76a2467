"""Patterns of masks: which weights go together, how many, which layers can carry them, and what becomes faster."""
