"""The operator's own settings: one frozen record, made from the environment and the command line.

Apart from the command line, because tests and the library build the record directly. Times are
seconds; the only lower bound on them is zero, so that tests can be as fast as they like.
"""

import dataclasses
import itertools
import math
import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from isthmus.allow_list import DEFAULT, allow_list
from isthmus.api.front_pods import read_front_pods
from isthmus.api.ip_family import IpFamily, pods_family
from isthmus.errors import SettingsError
from isthmus.settings_reading import NUMBER, read_settings

PREFIX = "ISTHMUS_"
"""Environment variables are this and the field's name in capitals: ISTHMUS_RELIST_INTERVAL."""

_INSTALLATION_ID = re.compile(r"[a-z0-9]{8}")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def default_identity() -> str:
    """Return a name that no other process ever has: host name (the pod's) and a random part."""
    return f"{socket.gethostname()}_{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of `isthmus run`."""

    kubeconfig: str | None = None
    """Path of a kubeconfig; None for the pod's service account, else the default kubeconfig."""

    context: str | None = None
    """Context in the kubeconfig; None for its current one."""

    namespace: str = "isthmus-system"
    """The operator's own namespace: its Lease, and the SlurmClusters referred to without one."""

    watch_namespaces: tuple[str, ...] = ()
    """Namespaces to serve, those of the SlurmClusters included; empty for the whole cluster."""

    installation_id: str = ""
    """8 characters [a-z0-9] in every SLURM job name: whose jobs they are. Never change it while
    jobs run, and give two installations that share a SLURM account different ones. The operator
    does not run without one."""

    identity: str = dataclasses.field(default_factory=default_identity)
    """Name of this process in the Lease; unique among all processes that ever ran."""

    leader_election: bool = True
    """Whether to hold a Lease while writing. Without, nothing else may run at the same time."""

    lease_name: str = "isthmus"
    """Name of the Lease in the operator's namespace."""

    lease_duration: float = 15.0
    """Seconds for which an unrenewed Lease keeps other instances away."""

    renew_deadline: float | None = None
    """Seconds after the last renewal at which writing ends; None for two thirds of
    `lease_duration`."""

    renew_interval: float = 2.0
    """Seconds between renewals of the Lease."""

    renew_timeout: float | None = None
    """Seconds for one request of the election; None for three quarters of `renew_interval`."""

    workers: int = 32
    """How many objects are reconciled at a time; more than a hanging SLURM cluster can hold up."""

    pass_time_limit: float = 120.0
    """Seconds for one pass over one object; one that takes longer is cancelled and retried."""

    relist_interval: float = 300.0
    """Seconds between complete lists of everything watched."""

    first_sync_deadline: float = 60.0
    """Seconds for the first complete list; after that the process ends."""

    api_timeout: float = 15.0
    """Seconds for one request to the API server."""

    retry_base: float = 0.5
    """Seconds before the first retry of a failed pass; doubled with each failure in a row."""

    retry_cap: float = 300.0
    """Most seconds before a retry of a failed pass."""

    local_login: bool = False
    """Obey `login: {local: {}}` of SlurmClusters in the operator's own namespace: the programs in
    their `commands.binDir` run as the operator's own user. For an operator beside SLURM's
    commands."""

    generate_api_keys: bool = True
    """Give each deployment with a pool on SLURM an API key of its own (`<name>-api-key`). A front
    adds it to requests; clients of the bare Service send it."""

    resync_interval: float = 60.0
    """Seconds after which each object is looked at again although nothing changed."""

    slurm_poll_interval: float | None = None
    """Overrides `spec.commands.pollInterval` of every SlurmCluster; None to obey it."""

    slurm_timeout: float | None = None
    """Overrides `spec.commands.timeout` of every SlurmCluster; None to obey it."""

    slurm_submit_timeout: float | None = None
    """Overrides `spec.commands.submitTimeout` of every SlurmCluster; None to obey it."""

    submit_unknown_wait: float | None = None
    """Seconds for which an unclear submission must stay without a trace before it may be repeated;
    None to derive it from the cluster's times."""

    stale_after: float = dataclasses.field(default=3.0, metadata=NUMBER)
    """Poll intervals after which a SLURM snapshot counts as no observation at all."""

    orphan_after: float = 600.0
    """Seconds for which a job of ours must have been without a SlurmJob before `orphanPolicy` ends
    it; three complete looks at the queue at least."""

    keep_job_files: float = 604800.0
    """Seconds for which logs, claims and folders of ended jobs stay in a cluster's work directory:
    seven days. Files of a job that SLURM shows, or that has a SlurmJob, stay whatever their age."""

    ssh_reconnect_pause: float = 30.0
    """Seconds between attempts to log in to a SLURM cluster after one that failed, and ten times as
    many after one that was refused; many sites ban addresses that knock more often."""

    secrets_interval: float = 30.0
    """Seconds for which a Secret that was read is believed, also that there is none. Less asks the
    API server more often for keys of workers, of probes and of ssh."""

    deregister_delay: float = 5.0
    """Seconds between a worker's leaving the membership and the earliest TERM to its engine."""

    termination_grace: float = 60.0
    """Seconds between TERM and KILL for an engine that is idle or has used up its drain."""

    pre_stop_seconds: float = 5.0
    """Seconds that a pod's preStop waits at least, for its deregistration to reach every node."""

    front_image: str = "isthmus-front:1"
    """Image of the front (`endpoint.type: Managed`). Fronts are replaced when it changes, and not
    when the operator is upgraded; so a tag should never mean another image later."""

    front_pods: str = ""
    """What pods of fronts have beside that, as a JSON object with the words of a pod:
    imagePullSecrets (Secrets that must lie in each namespace with a front), nodeSelector,
    tolerations, priorityClassName, and resources, which are those of Envoy. Fronts are replaced
    when it changes."""

    ip_family: Literal["ipv4", "ipv6"] = dataclasses.field(
        default_factory=lambda: pods_family(os.environ).value
    )
    """Family of pods' addresses, on which engines in pods listen: by default that of the API
    server's address in a pod, and ipv4 where the operator is no pod."""

    router_interval: float = 10.0
    """Seconds between two looks at a router of `endpoint.type: External`."""

    router_allow: tuple[str, ...] = DEFAULT
    """Where routers of `endpoint.type: External` may be: address ranges (203.0.113.0/24), suffixes
    of host names (example.org), `private` for all private networks. The operator's own loopback,
    link-local addresses and the API server only where an entry names just them."""

    front_drain: float = 300.0
    """Most seconds for which a pod of the front that is deleted waits for its requests."""

    tunnel_port_first: int = 20000
    """First port on the tunnel supervisors; below the ports that the kernel gives to clients."""

    tunnel_port_last: int = 24999
    """Last port on the tunnel supervisors: as many workers can be reached through tunnels."""

    tunnel_port_hold: float = 60.0
    """Seconds for which the port of a forward that is gone is not given to another worker."""

    failure_backoff_base: float = 10.0
    """Seconds before a failed worker is replaced the first time; doubled with each failure."""

    failure_backoff_cap: float = 300.0
    """Most seconds before a failed worker is replaced."""

    log_format: Literal["text", "json"] = "text"
    """How log lines look."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Which log lines are written."""

    liveness_port: int | None = 8081
    """Port of `/healthz`; 0 in the environment, None in the record, for no endpoint."""

    metrics_port: int | None = None
    """Port of `/metrics`, for Prometheus; the manifests write 8082. By default, and with 0 in the
    environment, there is none."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SettingsError: with one sentence per mistake.
        """
        mistakes = [*_mistakes_of_values(self), *_mistakes_of_pairs(self)]
        if mistakes:
            raise SettingsError(" ".join(mistakes))

    @property
    def family(self) -> IpFamily:
        """Family of pods' addresses."""
        return IpFamily(self.ip_family)

    @property
    def election_timeout(self) -> float:
        """Seconds for one request of the election, derived if it is not set."""
        return 0.75 * self.renew_interval if self.renew_timeout is None else self.renew_timeout

    @property
    def election_deadline(self) -> float:
        """Seconds after the last renewal at which writing ends, derived if it is not set."""
        given = self.renew_deadline
        return self.lease_duration * 2 / 3 if given is None else given

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, **overrides: object
    ) -> "Settings":
        """Make the settings from `ISTHMUS_*` variables.

        Args:
            environ: the environment, by default that of the process.
            **overrides: fields from the command line; they come before the environment. None means
                not given. A text is read as the variable would be.

        Raises:
            SettingsError: a value is wrong; says which and what to write.
        """
        return read_settings(
            cls,
            prefix=PREFIX,
            environ=os.environ if environ is None else environ,
            overrides=overrides,
        )


def _mistakes_of_values(settings: Settings) -> list[str]:
    mistakes = []
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not math.isfinite(value) or value <= 0:
            mistakes.append(f"{each.name} is {value:g}; it must be greater than 0.")
    if settings.installation_id and not _INSTALLATION_ID.fullmatch(settings.installation_id):
        mistakes.append(
            f"installation_id is {settings.installation_id!r}; write exactly 8 characters of a-z "
            "and 0-9, and keep them for the life of the installation."
        )
    namespaces = {"namespace": (settings.namespace,), "watch_namespaces": settings.watch_namespaces}
    for name, values in namespaces.items():
        wrong = [value for value in values if not _NAME.fullmatch(value)]
        if wrong:
            mistakes.append(f"{name}: {', '.join(map(repr, wrong))} cannot be a namespace's name.")
    try:
        read_front_pods(settings.front_pods)
    except ValueError as error:
        mistakes.append(str(error))
    if not settings.identity:
        mistakes.append("identity is empty; leave it out, or give each process its own name.")
    for name in ("liveness_port", "metrics_port"):
        port = getattr(settings, name)
        if port is not None and port > 65535:
            mistakes.append(f"{name} is {port}; write at most 65535.")
    if settings.metrics_port is not None and settings.metrics_port == settings.liveness_port:
        mistakes.append("metrics_port must not be liveness_port: they are two servers.")
    try:
        allow_list(settings.router_allow)
    except ValueError as error:
        mistakes.append(f"router_allow has {error}.")
    for name in ("tunnel_port_first", "tunnel_port_last"):
        if not 1024 <= getattr(settings, name) <= 65535:
            mistakes.append(f"{name} must be between 1024 and 65535.")
    return mistakes


def _mistakes_of_pairs(settings: Settings) -> list[str]:
    mistakes = []
    times = (
        ("renew_timeout", settings.election_timeout),
        ("renew_interval", settings.renew_interval),
        ("renew_deadline", settings.election_deadline),
        ("lease_duration", settings.lease_duration),
    )
    for (shorter, low), (longer, high) in itertools.pairwise(times):
        if low >= high and settings.leader_election:
            mistakes.append(f"{shorter} ({low:g} s) must be less than {longer} ({high:g} s).")
    for base, cap in (
        ("retry_base", "retry_cap"),
        ("failure_backoff_base", "failure_backoff_cap"),
    ):
        low, high = getattr(settings, base), getattr(settings, cap)
        if low > high:
            mistakes.append(f"{base} ({low:g} s) must not be more than {cap} ({high:g} s).")
    if settings.tunnel_port_first > settings.tunnel_port_last:
        mistakes.append("tunnel_port_first must not be more than tunnel_port_last.")
    return mistakes
