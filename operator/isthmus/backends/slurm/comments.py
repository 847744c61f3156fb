"""The job comment: the identity of a worker in clear, and what its job publishes there.

Apart from the script that writes it and the snapshot that brings it back. The comment may be
rewritten by a site's plug-ins and forged by other jobs of the account: it is a hint that is checked
against the job name, never an identity by itself.
"""

from __future__ import annotations

import re

from isthmus.backends.slurm.records import PublishedEndpoint

PREFIX = "isthmus:v1"
MAX_LENGTH = 300

_PART = r"[A-Za-z0-9._-]{1,63}"
_IDENTITY = rf"{PREFIX}:{_PART}:{_PART}/{_PART}:{_PART}:{_PART}:(?P<attempt>[a-z0-9]{{6}})"
_PUBLISHED = re.compile(rf"{_IDENTITY}:port=(?P<port>[1-9][0-9]{{0,4}})", re.ASCII)


def identity_comment(
    *, installation: str, namespace: str, deployment: str, pool: str, slot: int, attempt: str
) -> str:
    """`isthmus:v1:<installation>:<namespace>/<deployment>:<pool>:<slot>:<attempt>`.

    Raises:
        ValueError: a part is not a Kubernetes name, or the whole is too long.
    """
    comment = f"{PREFIX}:{installation}:{namespace}/{deployment}:{pool}:{slot}:{attempt}"
    if not re.fullmatch(_IDENTITY, comment, re.ASCII) or len(comment) > MAX_LENGTH:
        raise ValueError(f"not an identity of a job: {comment[:MAX_LENGTH]!r}")
    return comment


def parse_comment(comment: str) -> PublishedEndpoint | None:
    """What a job published, or None where it has not (or the text is anything else).

    The caller checks the port against the cluster's range and the attempt against its own.
    """
    if len(comment) > MAX_LENGTH + 20:
        return None
    match = _PUBLISHED.fullmatch(comment)
    if match is None or int(match["port"]) > 65535:
        return None
    return PublishedEndpoint(attempt=match["attempt"], port=int(match["port"]))
