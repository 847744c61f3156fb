"""Writes the slices of our own forwards, and reads those of the others.

Those of a supervisor that is dead are taken away here too. Others may write EndpointSlices as well:
one that says nothing that could be read is set aside, and told once.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from isthmus.api import names
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import (
    Object,
    annotations,
    dig,
    labels,
    name,
    namespace,
    owner_uids,
    resource_version,
    uid,
)
from isthmus.apiserver.resources import ENDPOINT_SLICES
from isthmus.apiserver.store import Store
from isthmus.errors import ApiNotFoundError
from isthmus.guarded import where
from isthmus.routing.slices import LABEL_SERVICE_NAME
from isthmus.routing.tunnel_slice import TunnelSlice
from isthmus.routing.tunnel_slices import Published, tunnel_host, tunnel_of, tunnel_slice

_log = logging.getLogger(__name__)


class Publisher:
    """The slices of one supervisor."""

    def __init__(self, *, api: ApiServer, store: Store, host: str) -> None:
        """Prepare.

        Args:
            api: whose answers go into the store.
            store: holds every slice of ours.
            host: id of the supervisor; it is the only writer of the slices that carry it.
        """
        self._api, self._store, self._host = api, store, host
        self._last: _Seen | None = None
        self._agreed: dict[tuple[str, str], tuple[Object, Published]] = {}

    def slices(self, host: str | None = None) -> tuple[Object, ...]:
        """The slices of a supervisor; by default our own."""
        return tuple(one.obj for one in self._seen().by_host.get(host or self._host, ()))

    def hosts(self) -> frozenset[str]:
        """Ids of all supervisors that have slices."""
        return frozenset(self._seen().by_host)

    def written(self) -> frozenset[tuple[str, str, int | None]]:
        """Host, uid and version of every slice of a forward."""
        return self._seen().written

    def in_rotation(self) -> dict[str, bool]:
        """By uid of the SlurmJob, whether our slice of it is ready as it is stored."""
        return {
            key: one.tunnel is not None and one.tunnel.ready
            for one in self._seen().by_host.get(self._host, ())
            for key in one.owners
        }

    def elsewhere(self) -> set[str]:
        """Uids of the SlurmJobs whose forward is up and ready on another supervisor."""
        return {
            key
            for host, slices in self._seen().by_host.items()
            for one in slices
            if host != self._host and one.tunnel is not None
            if one.tunnel.up and one.tunnel.ready
            for key in one.owners
        }

    def others(self) -> Mapping[tuple[str, str], int]:
        """Ready endpoints by Service that are not ours, and are not known to be cut off as well.

        Two supervisors that lose the same login host must not each rely on the other.
        """
        return self._seen().others

    async def publish(self, wanted: Iterable[Published]) -> None:
        """Make the slices of this supervisor exactly these.

        Raises:
            ApiError: a write failed; the next call goes on.
        """
        missing = {(p.namespace, _slice_name(p)): p for p in wanted}
        agreed: dict[tuple[str, str], tuple[Object, Published]] = {}
        for obj in self.slices():
            place = namespace(obj), name(obj)
            if place not in missing:
                await self.remove(obj)
                continue
            both = obj, missing[place]
            # Nearly always neither has changed since the last round.
            if self._agreed.get(place) == both or _same(obj, tunnel_slice(missing[place])):
                agreed[place] = both
                del missing[place]
        self._agreed = agreed
        for published in missing.values():
            await self._api.apply(ENDPOINT_SLICES, tunnel_slice(published))

    async def remove(self, obj: Object) -> None:
        """Delete a slice; one that is gone is fine."""
        try:
            await self._api.delete(
                ENDPOINT_SLICES, namespace=namespace(obj), name=name(obj), uid=uid(obj)
            )
        except ApiNotFoundError:
            return

    def _seen(self) -> "_Seen":
        """What all slices say, read once for each change of one: a round asks many times."""
        listed = self._store.list(ENDPOINT_SLICES)
        if self._last is None or self._last.listed is not listed:
            slices = [self._store.derived.of(obj, _slice) for obj in listed]
            self._last = _seen(slices, listed=listed, host=self._host)
        return self._last


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    """What is read from one EndpointSlice; `tunnel` is None for one that is of no forward."""

    obj: Object
    host: str
    tunnel: TunnelSlice | None
    owners: tuple[str, ...]
    service: tuple[str, str]
    ready: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What is read from all of them, as long as the store has the same."""

    listed: tuple[Object, ...]
    by_host: Mapping[str, tuple[_Slice, ...]]
    written: frozenset[tuple[str, str, int | None]]
    others: Mapping[tuple[str, str], int]


def _slice(obj: Object) -> _Slice:
    """Read one slice; called once for each version of it (`Derived`)."""
    place = f"{namespace(obj)}/{name(obj)}"
    try:
        read = _read(obj)
    except Exception as error:  # one odd slice must not end what holds all tenants' forwards
        _log.warning("EndpointSlice %s cannot be read and is set aside: %s", place, where(error))
        return _Slice(obj=obj, host="", tunnel=None, owners=(), service=("", ""), ready=0)
    if read.host and read.tunnel is None:
        _log.warning("EndpointSlice %s has no address, or no port, and is set aside", place)
    return read


def _read(obj: Object) -> _Slice:
    endpoints = dig(obj, "endpoints", default=[])
    ready = sum(
        dig(endpoint, "conditions", "ready") is True
        for endpoint in (endpoints if isinstance(endpoints, list) else [])
    )
    return _Slice(
        obj=obj,
        host=tunnel_host(obj),
        tunnel=tunnel_of(obj),
        owners=owner_uids(obj),
        service=(namespace(obj), labels(obj).get(LABEL_SERVICE_NAME, "")),
        ready=ready,
    )


def _seen(slices: Iterable[_Slice], *, listed: tuple[Object, ...], host: str) -> _Seen:
    by_host: dict[str, tuple[_Slice, ...]] = {}
    others: dict[tuple[str, str], int] = {}
    for one in slices:
        if one.host:
            by_host[one.host] = (*by_host.get(one.host, ()), one)
        if one.tunnel is None or (one.tunnel.host != host and one.tunnel.up):
            others[one.service] = others.get(one.service, 0) + one.ready
    written = frozenset(
        (each, uid(one.obj), resource_version(one.obj))
        for each, slices in by_host.items()
        for one in slices
    )
    return _Seen(listed=listed, by_host=by_host, written=written, others=others)


def _slice_name(published: Published) -> str:
    return names.tunnel_slice_name(slurm_job=published.slurm_job, host=published.tunnel.host)


def _same(stored: Object, wanted: Object) -> bool:
    """Whether a slice says all that it should."""
    if any(labels(stored).get(key) != value for key, value in labels(wanted).items()):
        return False
    if any(annotations(stored).get(key) != value for key, value in annotations(wanted).items()):
        return False
    parts = (("endpoints", 0, "addresses"), ("endpoints", 0, "conditions", "ready"))
    if any(dig(stored, *path) != dig(wanted, *path) for path in parts):
        return False
    return dig(stored, "ports", 0, "port") == dig(wanted, "ports", 0, "port")
