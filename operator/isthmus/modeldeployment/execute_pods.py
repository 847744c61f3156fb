"""Executes what a plan asks for of single pods: out of the rotation, back, to their end.

Every write names the pod's uid and the resourceVersion that was observed, so that a plan made from
an old observation fails instead of marking another pod.
"""

from collections.abc import Mapping
from typing import TypeAlias

from isthmus.api import names
from isthmus.api.desired import Desired
from isthmus.api.times import rfc3339
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.key import Key
from isthmus.apiserver.objects import Object, metadata, uid
from isthmus.apiserver.resources import PODS
from isthmus.apiserver.store import Store
from isthmus.backends.kubernetes.observe import engine_of, probe_url
from isthmus.engines import ENGINES
from isthmus.errors import ApiNotFoundError
from isthmus.modeldeployment.actions import DrainPods, ReleasePod, ReturnPod, ShortenPod
from isthmus.probing.prober import Prober
from isthmus.probing.verdict import ProbeTarget

POD = "Pod"
"""Kind of the keys under which pods are probed."""
_LOADS_LIMIT = 1.5
_MARKED_COST = "-1000"
_RELEASED_COST = "-2000"

PodAction: TypeAlias = DrainPods | ReleasePod | ReturnPod | ShortenPod


class PodActions:
    """Marks, releases, returns and ends pods."""

    def __init__(self, *, store: Store, api: ApiServer, prober: Prober) -> None:
        """Prepare; `api` is gated and its answers go into the store."""
        self._store = store
        self._api = api
        self._prober = prober

    async def execute(self, action: PodAction, *, desired: Desired) -> None:
        """Execute one action.

        Raises:
            ApiError: as the API server answers, also for a pod that changed meanwhile.
        """
        if isinstance(action, DrainPods):
            for name in await self._least_loaded(action, desired=desired):
                await self._mark(desired.namespace, name, since=action.since)
            return
        pod = self._store.get(PODS, desired.namespace, action.name)
        if pod is None or uid(pod) != action.uid:
            return
        if isinstance(action, ReleasePod):
            notes: dict[str, str | None] = {
                names.ANNOTATION_DRAINED_AT: rfc3339(action.at),
                names.ANNOTATION_DELETION_COST: _RELEASED_COST,
            }
            if action.cut:
                notes[names.ANNOTATION_REQUESTS_CUT] = str(action.cut)
            await self._patch(pod, annotations=notes, labels={})
        elif isinstance(action, ReturnPod):
            gone = dict.fromkeys(
                (
                    names.ANNOTATION_DRAINING_SINCE,
                    names.ANNOTATION_DRAINED_AT,
                    names.ANNOTATION_REQUESTS_CUT,
                    names.ANNOTATION_DELETION_COST,
                )
            )
            traffic = {names.LABEL_TRAFFIC: names.TRAFFIC_ON}
            await self._patch(pod, annotations=gone, labels=traffic)
        else:
            await self._shorten(pod, action)

    async def _least_loaded(self, action: DrainPods, *, desired: Desired) -> tuple[str, ...]:
        """The pods to drain; their loads are asked for where there is a choice."""
        if action.count >= len(action.candidates):
            return action.candidates
        targets = {}
        for name in action.candidates:
            pod = self._store.get(PODS, desired.namespace, name)
            target = None if pod is None else pod_target(pod, desired=desired)
            if target is not None:
                targets[name] = target
        loads = await self._prober.loads(targets, time_limit=_LOADS_LIMIT)
        return least_loaded(action.candidates, loads=loads)[: action.count]

    async def _mark(self, namespace: str, name: str, *, since: float) -> None:
        pod = self._store.get(PODS, namespace, name)
        if pod is None:
            return
        notes: dict[str, str | None] = {
            names.ANNOTATION_DRAINING_SINCE: rfc3339(since),
            names.ANNOTATION_DELETION_COST: _MARKED_COST,
        }
        await self._patch(pod, annotations=notes, labels={names.LABEL_TRAFFIC: None})

    async def _patch(
        self,
        pod: Object,
        *,
        annotations: Mapping[str, str | None],
        labels: Mapping[str, str | None],
    ) -> None:
        meta = metadata(pod)
        try:
            await self._api.patch(
                PODS,
                namespace=str(meta["namespace"]),
                name=str(meta["name"]),
                patch={
                    "metadata": {
                        "uid": meta["uid"],
                        "resourceVersion": meta["resourceVersion"],
                        "annotations": dict(annotations),
                        "labels": dict(labels),
                    }
                },
            )
        except ApiNotFoundError:
            return

    async def _shorten(self, pod: Object, action: ShortenPod) -> None:
        meta = metadata(pod)
        try:
            await self._api.delete(
                PODS,
                namespace=str(meta["namespace"]),
                name=action.name,
                uid=action.uid,
                grace_seconds=action.seconds,
            )
        except ApiNotFoundError:
            return


class PodWatch:
    """Has the loads of draining pods read, and of no others."""

    def __init__(self, *, store: Store, prober: Prober) -> None:
        """Prepare."""
        self._store = store
        self._prober = prober
        self._watched: dict[tuple[str, str], frozenset[str]] = {}

    def follow(self, desired: Desired, pods: frozenset[str]) -> None:
        """Probe exactly these draining pods of a deployment from now on."""
        place = desired.namespace, desired.name
        for name in sorted(self._watched.get(place, frozenset()) | pods):
            pod = self._store.get(PODS, desired.namespace, name) if name in pods else None
            target = None if pod is None else pod_target(pod, desired=desired)
            self._prober.watch(Key(POD, desired.namespace, name), target, draining=True)
        if pods:
            self._watched[place] = pods
        else:
            self._watched.pop(place, None)

    def forget(self, namespace: str, deployment: str) -> None:
        """The deployment is gone."""
        for name in sorted(self._watched.pop((namespace, deployment), frozenset())):
            self._prober.watch(Key(POD, namespace, name), None)


def pod_target(pod: Object, *, desired: Desired) -> ProbeTarget | None:
    """Where the load of a pod is asked for; None while it has no address or a strange program."""
    url, engine = probe_url(pod), engine_of(pod)
    if url is None or engine is None or engine not in ENGINES:
        return None
    return ProbeTarget(
        url_base=url,
        model=desired.model.served_names[0],
        attempt="",
        engine=engine,
        interval=desired.health.interval,
        timeout=float(ENGINES[engine].health_timeout),
        success_threshold=desired.health.success_threshold,
        failure_threshold=desired.health.failure_threshold,
    )


def least_loaded(
    candidates: tuple[str, ...], *, loads: Mapping[str, int | None]
) -> tuple[str, ...]:
    """Candidates by their load, those of unknown load last, else in the given order."""

    def key(name: str) -> tuple[bool, int]:
        load = loads.get(name)
        return load is None, load or 0

    return tuple(sorted(candidates, key=key))
