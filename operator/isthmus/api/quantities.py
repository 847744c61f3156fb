"""Kubernetes quantities ("64Gi", "7500m") as SLURM wants them: whole MiB and whole cores.

Only for rendering jobs; in pods the quantity is passed on as written.
"""

import math
import re
from decimal import Decimal
from typing import Final

QUANTITY_PATTERN: Final = r"^[0-9]{1,15}(\.[0-9]{1,3})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
"""Quantities that we accept for CPU and memory; no exponents, no sign."""

_QUANTITY: Final = re.compile(QUANTITY_PATTERN, re.ASCII)
_FACTORS: Final[dict[str, Decimal]] = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
}


def parse_quantity(text: str) -> Decimal:
    """Return the number of units: bytes, or CPU cores.

    Raises:
        ValueError: `text` is not a quantity such as "8", "7500m" or "64Gi".
    """
    if _QUANTITY.fullmatch(text) is None:
        raise ValueError(f'{text!r} is not a quantity: write for example "8", "7500m" or "64Gi"')
    number = text.rstrip("mkMGTPKi")
    return Decimal(number) * _FACTORS[text[len(number) :]]


def whole_cores(text: str) -> int:
    """Return CPU cores, rounded up, at least one: SLURM allocates no part of a core."""
    return max(1, math.ceil(parse_quantity(text)))


def whole_mebibytes(text: str) -> int:
    """Return memory in MiB, rounded up: the unit of sbatch's `--mem` without a suffix."""
    return max(1, math.ceil(parse_quantity(text) / 2**20))
