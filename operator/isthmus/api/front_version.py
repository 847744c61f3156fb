"""Which words of the operator a front of this release understands, as one number.

Apart from the contract, which lists the words: a pod of a front reads this as it starts, and loads
nothing else for it.
"""

from typing import Final

VERSION: Final = 1
"""Raised with each word that fronts learn: an argument, a variable, or what stands in one."""

OLDEST: Final = 0
"""What a front counts as that does not say: releases of before this number."""
