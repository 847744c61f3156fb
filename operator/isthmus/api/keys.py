"""API keys of workers: what may be one, how one is told from another, where the user names his.

An engine that has a key answers nobody else. Pods have the deployment's key; an attempt on SLURM
has one of its own, derived from it, wherever somebody speaks for the clients who can tell workers
apart. A key is told from another by its digest, which stands on workers, slices and revisions where
a key never does. Digests and derived keys are made with a secret of the installation, so that
nobody who sees one can try out what a person may have chosen as a key.
"""

import base64
import hashlib
import hmac
import re
from typing import Annotated, Final

from pydantic import Field

from isthmus.api.base import ObjectName, SpecModel, matches, rules

DEFAULT_SECRET_KEY: Final = "api-key"
"""Key in the Secret that holds the API key, where the user names none."""

_USABLE: Final = re.compile(r"[A-Za-z0-9._~+/=][A-Za-z0-9._~+/=-]{15,511}")
_SECRET_KEY: Final = "^[-._a-zA-Z0-9]+$"


class ApiKeySecretRef(SpecModel):
    """One key of a Secret in the ModelDeployment's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: Annotated[
        str,
        Field(
            min_length=1,
            max_length=253,
            json_schema_extra=rules(
                matches(_SECRET_KEY, "a key of a Secret has only letters, digits and -._")
            ),
        ),
    ] = DEFAULT_SECRET_KEY
    """Key in the Secret."""


def unusable(key: str) -> str:
    """Why a text cannot be an API key, as a sentence that does not hold it; "" if it can.

    It stands in an HTTP header, in YAML and behind an option.
    """
    if _USABLE.fullmatch(key):
        return ""
    return (
        "an API key must be 16 to 512 characters of A-Z a-z 0-9 . _ ~ + / = - and not begin with "
        "'-': write for example the output of `openssl rand -hex 32`"
    )


def key_digest(key: str, *, uid: str, seed: str = "") -> str:
    """Return ten characters (a-z, 2-7) that stand for a key.

    Args:
        key: a usable key.
        uid: of the ModelDeployment, so that the same key of two deployments shows as two.
        seed: the installation's secret; "" gives the digest of releases that had none.
    """
    mac = hmac.new((seed + uid).encode(), key.encode(), hashlib.sha256).digest()
    return base64.b32encode(mac[:10]).decode().lower()[:10]


def attempt_key(key: str, *, job_name: str, seed: str) -> str:
    """Return the key of one attempt, 64 hexadecimal digits: an HMAC-SHA256 of its job's name.

    Args:
        key: the deployment's, from which an attempt's cannot be turned back.
        job_name: full name of the job in SLURM, which no other attempt has.
        seed: the installation's secret. Without it a node that was told an attempt's key could try
            out short keys of the deployment.
    """
    own = hmac.new(seed.encode(), key.encode(), hashlib.sha256).digest()
    return hmac.new(own, job_name.encode(), hashlib.sha256).hexdigest()


def configuration_entry(digest: str) -> str:
    """Return the entry of the Secret of worker keys that holds the engine's configuration file."""
    return f"{digest}.yaml"


def engine_configuration(key: str) -> str:
    """Return the configuration file (YAML) of an engine that takes its key by one."""
    return f'api-key: "{key}"\n'
