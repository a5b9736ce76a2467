"""One extension of prunec of each kind, as a package of its own would bring it."""
