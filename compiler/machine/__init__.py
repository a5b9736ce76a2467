"""This machine: its libraries, its GPU, and the rank of this process."""
