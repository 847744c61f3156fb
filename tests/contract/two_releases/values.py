"""What a release writes, as (kind, word, value) of the contract.

Apart from `release.py`, which runs in an older release too: here is how its output is taken apart.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from isthmus.api import names
from isthmus.api.contract import FRONT_POD, SLICES

Value = tuple[str, str, str]


def as_text(value: object) -> str:
    """A text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def of_slice(obj: Mapping[str, Any]) -> Iterator[Value]:
    """Of an EndpointSlice: labels, annotations, port, owner, readiness."""
    metadata = obj["metadata"]
    for word, value in {**metadata["labels"], **metadata.get("annotations", {})}.items():
        yield SLICES, word, value
    for owner in metadata["ownerReferences"]:
        yield SLICES, f"ownerReferences kind {owner['kind']}", owner["name"]
    for port in obj["ports"]:
        yield SLICES, f"port {port['name']}", as_text(port["port"])
    for endpoint in obj["endpoints"]:
        for word, value in endpoint["conditions"].items():
            yield SLICES, f"endpoints conditions {word}", as_text(value)


def of_status(status: Mapping[str, Any]) -> Iterator[Value]:
    """Of a SlurmJob's status: what supervisors read."""
    for word in ("phase", "host", "port"):
        if word in status:
            yield "SlurmJob", f"status.{word}", as_text(status[word])
    for word, value in status.get("forward", {}).items():
        yield "SlurmJob", f"status.forward.{word}", as_text(value)


def of_job(obj: Mapping[str, Any]) -> Iterator[Value]:
    """Of a SlurmJob's spec, and its key."""
    for word, value in obj["spec"].items():
        yield "SlurmJob", f"spec.{word}", as_text(value)
    if names.LABEL_KEY in obj["metadata"]["labels"]:
        yield "SlurmJob", names.LABEL_KEY, obj["metadata"]["labels"][names.LABEL_KEY]


def of_front(sidecar: Mapping[str, Any]) -> Iterator[Value]:
    """Of the sidecar's container: arguments and variables."""
    for argument in sidecar["command"]:
        word, is_option, value = argument.partition("=")
        if is_option:
            yield FRONT_POD, word, value
    for one in sidecar.get("env", ()):
        field = one.get("valueFrom", {}).get("resourceFieldRef")
        told = one["value"] if field is None else f"{field['resource']} of {field['containerName']}"
        yield FRONT_POD, one["name"], told
