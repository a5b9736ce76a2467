"""The work of a compile: each stage takes a program and gives a new one, with a fact about it."""
