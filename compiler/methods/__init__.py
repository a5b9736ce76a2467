"""Methods of pruning by name: what each scores, chooses, trains and rewrites, and the steps that it is made of."""
