"""The URL of a router that is not ours: what may stand in it.

Its schema refuses most of what is wrong before it is stored, with the same pattern. What was stored
before that, or passes it, is judged here, and again by who asks it: a URL that cannot be parsed is
the deployment's problem and nobody else's.
"""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

_LABEL: Final = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_PORT: Final = (
    "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
)

ROUTER_URL: Final = (
    f"^https?://({_LABEL}(\\.{_LABEL})*\\.?|\\[[0-9A-Fa-f:.]+\\])(:({_PORT}))?(/[A-Za-z0-9._/-]*)?$"
)
"""As RE2 and `re` both read it: a host name or address, a port from 1 to 65535, a path."""

ROUTER_URL_MESSAGE: Final = (
    "endpoint.external.url must be http:// or https:// with a host, a port from 1 to 65535 if any, "
    "and without user, query or fragment: write for example http://router.team-a:30000"
)


def router_url_problem(url: str) -> str:
    """Say what is wrong with a router's URL, "" if nothing is."""
    if len(url) > 256 or not re.fullmatch(ROUTER_URL[1:-1], url):
        return ROUTER_URL_MESSAGE
    # The pattern leaves nothing that these two raise but for brackets that hold no address.
    try:
        host = urlsplit(url).hostname or ""
        if ":" in host:
            ipaddress.IPv6Address(host)
    except ValueError:
        return ROUTER_URL_MESSAGE
    if any(label.startswith("xn--") and not _is_idna(label) for label in host.lower().split(".")):
        return f"{ROUTER_URL_MESSAGE} (a part of the host begins with xn-- and is no such name)"
    return ""


def _is_idna(label: str) -> bool:
    try:
        label.encode("ascii").decode("idna")
    except UnicodeError:
        return False
    return True
