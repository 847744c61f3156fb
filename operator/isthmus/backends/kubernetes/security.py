"""As whom an engine runs in its pod: what Pod Security asks for, as far as it breaks no image.

Apart from render.py because of the reasons. The images of both engines run as root unless they are
told otherwise, so what restricts root itself is for those who write `runAsNonRoot`.
"""

from collections.abc import Mapping

from isthmus.api.desired import Pool

Json = dict[str, object]


def pod_security(written: Mapping[str, object]) -> Json:
    """The pod's securityContext: what is written, whole for the level `restricted` where asked."""
    default = {"seccompProfile": {"type": "RuntimeDefault"}} if _non_root(written) else {}
    return {**default, **written}


def container_security(pool: Pool) -> Json:
    """The container's securityContext.

    No engine gets more rights than it starts with (sudo and the like), whoever it runs as. Another
    user than root has no capabilities then anyway, so to drop them takes nothing away; root needs
    some of them to read files of others. Without `runAsNonRoot` the system calls are the node's
    matter too: NCCL asks for memory near a GPU by some that RuntimeDefault forbids.
    """
    written = {} if pool.kubernetes is None else pool.kubernetes.security_context
    dropped: Json = {"capabilities": {"drop": ["ALL"]}} if _non_root(written) else {}
    return {"allowPrivilegeEscalation": False, **dropped}


def _non_root(written: Mapping[str, object]) -> bool:
    return written.get("runAsNonRoot") is True
