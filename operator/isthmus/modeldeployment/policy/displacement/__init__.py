"""Why workers of the current revision are replaced while they run: one file for each source.

A source is a function of what is observed and now; the rollout reads what it returns and knows none
of them.
"""
