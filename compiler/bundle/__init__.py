"""Bundles: the folder that a compile writes, as a whole or not at all."""
