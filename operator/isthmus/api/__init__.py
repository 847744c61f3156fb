"""The kinds: what users write, what the operator makes, and what is meant by it.

Pydantic models of the three kinds, names, conditions and reasons, derived defaults, the revision
hash and the CRD generator. Imports nothing of ours, so that everything else may import it.
"""
