"""Events where the drain of a pod ended with requests that had not finished.

No status says that of a pod, so this is none of the transitions.
"""
