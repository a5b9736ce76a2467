"""How many units every group keeps: goals become budgets of a program's costs, and an allocation spends them.

Goals are plain options (`goals`), budgets are limits of what widths use (`budgets`), and an allocation chooses widths
within them: one ratio everywhere (`uniform`), one error everywhere (`by_error`), one ranking of all units (`ranking`),
or step by step where the least is lost for what is saved (`greedy`), in the sum over units or in the product over
layers (`importance`). `allocator` holds what they share, prepared once for any goals.
"""
