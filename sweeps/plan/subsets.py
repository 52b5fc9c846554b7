"""Subsets of the inputs that are made of the members of a mixture."""

#: the mean over member tasks, and the one with the lowest faithfulness
MACRO, WORST = "macro", "worst"
OVER_TASKS = (MACRO, WORST)
