"""The rank of this process, which ``torchrun`` tells. Imports nothing that is slow to load."""

import os


def is_distributed() -> bool:
    """Whether this process works beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """Whether this process writes and speaks for all."""
    return int(os.environ.get("RANK", "0")) == 0
