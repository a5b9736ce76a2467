"""A module of a plug-in that ends the program when it is imported."""

raise SystemExit(7)
