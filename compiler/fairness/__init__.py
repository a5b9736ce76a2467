"""Fair comparison: which runs may be compared, and how."""
