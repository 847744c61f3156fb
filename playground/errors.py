"""The one error of the playground; apart so that every module can raise it without a cycle."""


class PlaygroundError(Exception):
    """Something the user has to know: what is wrong, where, and what to do instead."""
