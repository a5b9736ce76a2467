"""Rules that say how axis labels flow through operators, one module per family.

A rule takes the analysis' `Ties`, the node and its arguments by name, and returns the labels of the output. To add
one, write a function in the family's module under ``@rule("operator_name")``; an operator without a rule freezes
all that it touches.
"""
