"""INT8: what data say of the values that are put on grids, and weights that are chosen for their grids."""
