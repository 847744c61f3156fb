"""`/healthz` of an instance that waits for the Lease.

The endpoint of the watch is there only while an instance leads; without this one, the kubelet would
restart every instance that stands by, and an update that adds the new one first would never end.
"""

from contextlib import AbstractAsyncContextManager

from isthmus.small_server import Page, serving


def standing_by(port: int | None) -> AbstractAsyncContextManager[None]:
    """Answer GET /healthz on all addresses inside the context; None for no endpoint.

    Raises:
        OSError: the port is taken.
    """
    return serving(port, {"/healthz": lambda: Page(b"standing by\n")})
