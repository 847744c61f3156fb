"""Whose certificates a router's https is believed by: a CA of the deployment's own.

Apart from the routers, because what a Secret holds is judged here and goes no further.
"""

import re
import ssl
from typing import Final

from isthmus.apiserver.secrets import SecretRef, Secrets
from isthmus.errors import SecretMissingError

MOST_BYTES: Final = 64 * 1024
"""Of a bundle: some forty certificates."""

_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
)


async def trust(secrets: Secrets, ref: SecretRef) -> ssl.SSLContext:
    """Return a context that believes the CAs of a Secret, and no others.

    Raises:
        SecretMissingError: there is none, or it holds no certificates; never says what it holds.
        ApiError: the API server did not answer.
    """
    content = await secrets.value(ref)
    if len(content) > MOST_BYTES:
        raise SecretMissingError(f"{ref} is larger than {MOST_BYTES} bytes: leave the CA's alone")
    # Nothing but the certificates is given to the library: a private key beside them stays here.
    found = _CERTIFICATE.findall(content.decode("ascii", errors="replace"))
    try:
        return ssl.create_default_context(cadata="\n".join(found) if found else "none")
    except (ssl.SSLError, ValueError):
        raise SecretMissingError(
            f"{ref} holds no certificates in PEM: write those of the CA that signed the router's "
            "certificate (-----BEGIN CERTIFICATE-----)"
        ) from None
