"""Cost models of layers: measured by an engine on variants of a network, or predicted by a roofline; and their file."""
