"""The inputs of a compile: prunec.toml, the checkpoint, and their data."""
