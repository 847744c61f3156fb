"""Settings of `isthmus tunnels`, read as the operator's are: environment, then command line.

Apart from the operator's own, because the two are processes of their own with rights of their own.
"""

import dataclasses
import ipaddress
import math
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from isthmus.errors import SettingsError
from isthmus.settings_reading import read_settings

PREFIX = "ISTHMUS_TUNNELS_"
"""Environment variables are this and the field's name in capitals."""

_HOST_ID = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def default_host_id() -> str:
    """The host name (of a pod its name) in the form that a label takes."""
    text = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")
    return text[-63:].strip("-") or "tunnels"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelSettings:
    """All settings of `isthmus tunnels`. Times are seconds."""

    kubeconfig: str | None = None
    """Path of a kubeconfig; None for the pod's service account, else the default kubeconfig."""

    context: str | None = None
    """Context in the kubeconfig; None for its current one."""

    namespace: str = "isthmus-system"
    """Namespace of the Leases of all supervisors."""

    watch_namespaces: tuple[str, ...] = ()
    """Namespaces to serve, those of the SlurmClusters included; empty for the whole cluster."""

    address: str = ""
    """Address to listen on, which pods can reach: of a pod its own (POD_IP). Not loopback."""

    host_id: str = dataclasses.field(default_factory=default_host_id)
    """Name of this supervisor, in the name of its slices; unique among those that run."""

    port_first: int = 20000
    """First port of forwards, as the operator's tunnel-port-first; no other is held."""

    port_last: int = 24999
    """Last one, as the operator's tunnel-port-last."""

    check_interval: float = 5.0
    """Seconds between two requests through one forward."""

    check_timeout: float = 4.0
    """Seconds for one such request; two silent ones in a row are a broken way."""

    connect_timeout: float = 10.0
    """Seconds for one attempt to connect to a login host."""

    reconnect_pause: float = 30.0
    """Seconds between attempts to connect to one login host after one that failed."""

    lease_duration: float = 15.0
    """Seconds of silence after which another supervisor takes this one for dead."""

    successor_wait: float = 60.0
    """Told to end: seconds to wait until another supervisor holds the same forwards."""

    leave_floor: float = 3.0
    """Then: seconds for every node to hear that the forwards are out of rotation."""

    drain_budget: float = 600.0
    """Then: most seconds to wait for open connections to end."""

    api_timeout: float = 15.0
    """Seconds for one request to the API server."""

    relist_interval: float = 300.0
    """Seconds between complete lists of everything watched."""

    first_sync_deadline: float = 60.0
    """Seconds for the first complete list; after that the process ends."""

    status_port: int | None = 8082
    """Port of /metrics and /healthz; 0 in the environment, None in the record, for none."""

    log_format: Literal["text", "json"] = "text"
    """How log lines look."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Which log lines are written."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SettingsError: with one sentence per mistake.
        """
        mistakes = _mistakes(self)
        if mistakes:
            raise SettingsError(" ".join(mistakes))

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, **overrides: object
    ) -> "TunnelSettings":
        """Make the settings from `ISTHMUS_TUNNELS_*` variables; `POD_IP` is the address's default.

        Args:
            environ: the environment, by default that of the process.
            **overrides: fields from the command line, which come first; None means not given.

        Raises:
            SettingsError: a value is wrong; says which and what to write.
        """
        environ = os.environ if environ is None else environ
        address = environ.get("POD_IP")
        return read_settings(
            cls,
            prefix=PREFIX,
            environ=environ,
            overrides=overrides,
            defaults={"address": address} if address else None,
        )


def _mistakes(settings: TunnelSettings) -> list[str]:
    mistakes = []
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, float) and (not math.isfinite(value) or value <= 0):
            mistakes.append(f"{each.name} is {value:g}; it must be greater than 0.")
    if settings.status_port is not None and settings.status_port > 65535:
        mistakes.append(f"status_port is {settings.status_port}; write at most 65535.")
    if not _HOST_ID.fullmatch(settings.host_id):
        mistakes.append(
            f"host_id is {settings.host_id!r}; write at most 63 of a-z, 0-9 and '-', beginning and "
            "ending with a letter or digit."
        )
    if not 1024 <= settings.port_first <= settings.port_last <= 65535:
        mistakes.append("port_first and port_last must be a range within 1024 to 65535.")
    mistakes += _mistakes_of_address(settings.address)
    return mistakes


def _mistakes_of_address(address: str) -> list[str]:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return [
            f"address is {address!r}; write the IP address on which pods reach this process "
            "(--address; in a pod set POD_IP from status.podIP)."
        ]
    # The API server refuses these in an EndpointSlice.
    if parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified:
        return [f"address is {address}; an EndpointSlice takes no such address: write another."]
    return []
