"""The status of a ModelDeployment: what exists, as an aggregate of workers and pools.

Apart from the spec, which users write. Everything is optional: a fresh object has no status.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from isthmus.api.base import ConditionModel, StatusModel, status_list, status_text
from isthmus.api.conditions import PendingClass

MAX_LISTED_WORKERS: Final = 2048
"""Workers in a status: an object has a bound. More there are in long drains of many rollouts."""

Count = Annotated[int | None, Field(ge=0, json_schema_extra={"format": "int32"})]
Text = Annotated[str | None, status_text(253)]
Sentence = Annotated[str | None, status_text(1024)]
Time = Annotated[str | None, Field(json_schema_extra={"format": "date-time"})]
BackendName = Literal["kubernetes", "slurm"]


class PendingStatus(StatusModel):
    """Why a pool has fewer ready workers than wanted."""

    # "class" is a word of Python, so the attribute has another name.
    pending_class: Annotated[PendingClass | None, Field(alias="class")] = None
    """Class of the reason: it decides whether waiting helps."""
    reason: Text = None
    """The scheduler's word."""
    message: Sentence = None
    """What to do about it."""
    since: Time = None
    """Since when."""


class PoolStatus(StatusModel):
    """One pool."""

    name: Annotated[str, status_text(15)]
    """Name of the pool."""
    backend: BackendName | None = None
    """Its scheduler."""
    desired: Count = None
    """Workers that the planner assigned to it."""
    ready: Count = None
    """Workers that serve."""
    revision: Annotated[str | None, status_text(16)] = None
    """Revision that it is meant to run."""
    pending: PendingStatus | None = None
    """Present while workers are missing."""
    why: Sentence = None
    """Why it has this many workers."""


class TunnelsStatus(StatusModel):
    """Forwards to workers that are not reached directly."""

    desired: Count = None
    """Workers that are reached through a forward."""
    up: Count = None
    """Those of them whose forward works."""
    summary: Annotated[str | None, status_text(16)] = None
    """Both, such as 2/3."""


class DrainingStatus(StatusModel):
    """A worker on its way out."""

    since: Time = None
    """When it left the rotation."""
    reason: Sentence = None
    """What it waits for, or what was cut."""


class DisplacedStatus(StatusModel):
    """A worker that is replaced by another of the same revision, which comes first."""

    reason: Annotated[str | None, status_text(64)] = None
    """Why, in one word."""
    message: Sentence = None
    """Why."""


class WorkerStatus(StatusModel):
    """One worker: a pod or a SLURM job."""

    name: Annotated[str, status_text(253)]
    """Name of the pod or SlurmJob."""
    pool: Text = None
    """Its pool."""
    backend: BackendName | None = None
    """Its scheduler."""
    pod: Text = None
    """Name of the pod."""
    job_id: Annotated[int | None, Field(ge=0, json_schema_extra={"format": "int64"})] = None
    """Job id in SLURM."""
    node: Sentence = None
    """Node or nodes it runs on."""
    phase: Annotated[str | None, status_text(32)] = None
    """Where it stands."""
    healthy: bool | None = None
    """Whether its probes succeed."""
    url: Annotated[str | None, status_text(512)] = None
    """Its own address, or that of its forward."""
    tunnel: Annotated[str | None, status_text(16)] = None
    """Up or Down, where it is reached through a forward."""
    revision: Annotated[str | None, status_text(16)] = None
    """Revision that it runs."""
    started_at: Time = None
    """When it started."""
    ends_at: Time = None
    """When SLURM will end it."""
    draining: DrainingStatus | None = None
    """Present on its way out."""
    displaced: DisplacedStatus | None = None
    """Present while it serves until its successor does."""
    replaces: Annotated[str | None, status_text(253)] = None
    """Name of the displaced worker that it was made for."""


class RolloutStatus(StatusModel):
    """The latest rollout: workers of older revisions replaced by those of the current one."""

    started_at: Time = None
    """When it began; a change while it lasts begins another one."""
    finished_at: Time = None
    """When all wanted workers served and were of the current revision; absent while it lasts."""

    @property
    def under_way(self) -> bool:
        """Whether it has begun and not ended."""
        return self.started_at is not None and self.finished_at is None


class ApiKeyStatus(StatusModel):
    """Where the API key is that clients of the workers send; never the key."""

    secret: Text = None
    """Name of the Secret, in the deployment's namespace."""
    key: Text = None
    """Key in it."""
    open_paths: Annotated[tuple[str, ...], status_list(64)] = ()
    """Paths that engines of this deployment answer without the key, to whoever reaches a worker's
    port."""


class ModelDeploymentStatus(StatusModel):
    """What is, written by the operator."""

    observed_generation: Annotated[
        int | None, Field(ge=0, json_schema_extra={"format": "int64"})
    ] = None
    """Generation of the spec that this status is about."""
    replicas: Count = None
    """Workers that exist and neither failed nor are ending."""
    ready_replicas: Count = None
    """Workers that serve."""
    updated_replicas: Count = None
    """Workers of the current revision."""
    available_replicas: Count = None
    """Workers that serve and may be counted on."""
    selector: Annotated[str | None, status_text(1024)] = None
    """Label selector of the scale subresource."""
    ready: Annotated[str | None, status_text(16)] = None
    """Ready and desired workers, such as 2/3."""
    backend: Annotated[str | None, status_text(32)] = None
    """Schedulers in use, such as kubernetes+slurm."""
    engine: Annotated[str | None, status_text(32)] = None
    """Engines in use, such as vllm+sglang."""
    url: Annotated[str | None, status_text(512)] = None
    """Address for clients in the cluster."""
    clients: Text = None
    """What the front lets clients do, in a few words; absent without a front of ours."""
    api_key: ApiKeyStatus | None = None
    """Where the API key of the workers is."""
    summary: Sentence = None
    """The state in a few words."""
    rollout: RolloutStatus | None = None
    """The latest rollout, with when it began and ended; absent before the first."""
    tunnels: TunnelsStatus | None = None
    """Forwards, where workers are reached through them."""
    conditions: Annotated[
        tuple[ConditionModel, ...],
        status_list(16, x_kubernetes_list_type="map", x_kubernetes_list_map_keys=["type"]),
    ] = ()
    """Ready, Available, Progressing."""
    pools: Annotated[tuple[PoolStatus, ...], status_list(16)] = ()
    """Each pool."""
    workers: Annotated[tuple[WorkerStatus, ...], status_list(MAX_LISTED_WORKERS)] = ()
    """Each worker, as far as there is room."""
    omitted_workers: Count = None
    """Workers beyond those that are listed."""
    draining: Count = None
    """Workers that finish their requests and then go."""
