"""Writes the slices of our own forwards, and reads those of the others.

Those of a supervisor that is dead are taken away here too.
"""

from collections.abc import Iterable

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
from isthmus.errors import ApiNotFoundError
from isthmus.reconcile.store import Store
from isthmus.routing.slices import LABEL_SERVICE_NAME
from isthmus.routing.tunnel_slices import Published, tunnel_of, tunnel_slice


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

    def slices(self, host: str | None = None) -> tuple[Object, ...]:
        """The slices of a supervisor; by default our own."""
        wanted = host or self._host
        return tuple(obj for obj in self._tunnels() if _host(obj) == wanted)

    def hosts(self) -> frozenset[str]:
        """Ids of all supervisors that have slices."""
        return frozenset(_host(obj) for obj in self._tunnels())

    def written(self) -> frozenset[tuple[str, str, int | None]]:
        """Host, uid and version of every slice of a forward."""
        return frozenset((_host(obj), uid(obj), resource_version(obj)) for obj in self._tunnels())

    def in_rotation(self) -> dict[str, bool]:
        """By uid of the SlurmJob, whether our slice of it is ready as it is stored."""
        found: dict[str, bool] = {}
        for obj in self.slices():
            tunnel = tunnel_of(obj)
            for key in owner_uids(obj):
                found[key] = tunnel is not None and tunnel.ready
        return found

    def elsewhere(self) -> set[str]:
        """Uids of the SlurmJobs whose forward is up and ready on another supervisor."""
        found: set[str] = set()
        for host in self.hosts() - {self._host}:
            for obj in self.slices(host):
                tunnel = tunnel_of(obj)
                if tunnel is not None and tunnel.up and tunnel.ready:
                    found.update(owner_uids(obj))
        return found

    def others(self) -> dict[tuple[str, str], int]:
        """Ready endpoints by Service that are not ours, and are not known to be cut off as well.

        Two supervisors that lose the same login host must not each rely on the other.
        """
        counts: dict[tuple[str, str], int] = {}
        for obj in self._store.list(ENDPOINT_SLICES):
            tunnel = tunnel_of(obj)
            if tunnel is not None and (tunnel.host == self._host or not tunnel.up):
                continue
            endpoints = dig(obj, "endpoints", default=[])
            ready = sum(
                dig(endpoint, "conditions", "ready") is True
                for endpoint in (endpoints if isinstance(endpoints, list) else [])
            )
            place = namespace(obj), labels(obj).get(LABEL_SERVICE_NAME, "")
            counts[place] = counts.get(place, 0) + ready
        return counts

    async def publish(self, wanted: Iterable[Published]) -> None:
        """Make the slices of this supervisor exactly these.

        Raises:
            ApiError: a write failed; the next call goes on.
        """
        made = {(p.namespace, _slice_name(p)): tunnel_slice(p) for p in wanted}
        for obj in self.slices():
            place = namespace(obj), name(obj)
            if place not in made:
                await self.remove(obj)
            elif _same(obj, made[place]):
                del made[place]
        for obj in made.values():
            await self._api.apply(ENDPOINT_SLICES, obj)

    async def remove(self, obj: Object) -> None:
        """Delete a slice; one that is gone is fine."""
        try:
            await self._api.delete(
                ENDPOINT_SLICES, namespace=namespace(obj), name=name(obj), uid=uid(obj)
            )
        except ApiNotFoundError:
            return

    def _tunnels(self) -> tuple[Object, ...]:
        return tuple(obj for obj in self._store.list(ENDPOINT_SLICES) if _host(obj))


def _host(obj: Object) -> str:
    return labels(obj).get(names.LABEL_TUNNEL_HOST, "")


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
