"""Everything a plan may ask for, as data. Each action names all that its execution needs.

An action is idempotent or carries a precondition (uid, resourceVersion), so that one planned on
an old observation fails instead of doing harm.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Put our finalizer on the reconciled object.

    Attributes:
        later: no worker waits for it.
    """

    later: bool = False


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Take our finalizer off the reconciled object: nothing of it is left."""
