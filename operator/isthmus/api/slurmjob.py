"""The kind SlurmJob: one attempt of one worker on SLURM, made by the operator.

Its creation is the intent to submit one job and its deletion the intent to stop it, so the spec
never changes. Everything that SLURM said about the job is status and can be found again.
"""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from isthmus.api.base import (
    ConditionModel,
    ObjectMeta,
    ObjectName,
    Rule,
    SpecModel,
    StatusModel,
    absolute_path,
    rules,
    status_list,
    status_text,
)
from isthmus.api.conditions import Phase
from isthmus.api.desired import ClusterReference
from isthmus.api.modeldeployment_status import Time
from isthmus.api.names import API_VERSION, MAX_DEPLOYMENT_NAME, MAX_POOL_NAME

Drained = Literal["Idle", "Timeout", "Unknown"]
"""How a drain ended: no requests left, budget used up, or nobody knows (no metrics)."""

PUBLIC_KEY: Final = "^ssh-ed25519 [A-Za-z0-9+/=]+$"
"""A line of authorized_keys without options or comment; nothing else may become one."""

_WORD = {"pattern": "^[a-z0-9]+$"}


class JobClusterRef(SpecModel):
    """The SlurmCluster that the job goes to."""

    name: ObjectName
    """Its name."""
    namespace: ObjectName
    """Its namespace."""


class SlurmJobSpec(SpecModel):
    """The intent; never changes."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "self == oldSelf",
                "a SlurmJob is one attempt and never changes: edit the ModelDeployment, or delete "
                "the SlurmJob to have its worker replaced",
            )
        )
    )

    cluster_ref: JobClusterRef
    """The SlurmCluster that the job goes to."""
    deployment: Annotated[str, Field(min_length=1, max_length=MAX_DEPLOYMENT_NAME)]
    """Name of the ModelDeployment, in the same namespace."""
    pool: Annotated[str, Field(min_length=1, max_length=MAX_POOL_NAME)]
    """Name of the pool."""
    slot: Annotated[int, Field(ge=0, le=999)]
    """Number of the worker in its pool; its next attempt has the same."""
    attempt: Annotated[str, Field(min_length=6, max_length=6, json_schema_extra=_WORD)]
    """Random name of this attempt."""
    revision: Annotated[str, Field(min_length=1, max_length=16, json_schema_extra=_WORD)]
    """Revision that it runs; the ControllerRevision holds what it means."""
    job_name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=128,
            json_schema_extra={"pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        ),
    ]
    """Full name of the job in SLURM."""
    work_directory: Annotated[
        str | None,
        Field(max_length=200, json_schema_extra=rules(absolute_path("spec.workDirectory"))),
    ] = None
    """The cluster's work directory when the attempt was made: its start gate, log and key are there
    whatever is lost of the status and whatever the SlurmCluster says later."""

    @property
    def cluster(self) -> ClusterReference:
        """The SlurmCluster that the job goes to, as everything inside of the operator names it."""
        return ClusterReference(namespace=self.cluster_ref.namespace, name=self.cluster_ref.name)


class ForwardStatus(StatusModel):
    """The forward that the worker wants; a tunnel supervisor holds it and publishes its slice."""

    mode: Annotated[str | None, status_text(16)] = None
    """How it is reached: Tunnel, NodeSSH or Reverse. Fixed when the forward is assigned."""
    port: Annotated[int | None, Field(ge=1, le=65535)] = None
    """Port on the tunnel supervisor; kept as long as the attempt lives."""
    public_key: Annotated[
        str | None, Field(json_schema_extra={"maxLength": 1024, "pattern": PUBLIC_KEY})
    ] = None
    """With which the job of mode Reverse calls; it may listen on the port and do nothing else."""
    in_traffic: bool | None = None
    """Whether the worker may get requests, as far as it is healthy, ours and not draining."""
    service: Annotated[str | None, status_text(253)] = None
    """Service whose membership it belongs to."""


class SlurmJobStatus(StatusModel):
    """What is, written by the operator."""

    phase: Phase | None = None
    """Where the attempt stands."""
    reason: Annotated[str | None, status_text(253)] = None
    """Why."""
    message: Annotated[str | None, status_text(1024)] = None
    """In a sentence, with what to do."""
    job_id: Annotated[int | None, Field(ge=0, json_schema_extra={"format": "int64"})] = None
    """Job id in SLURM."""
    state: Annotated[str | None, status_text(64)] = None
    """SLURM's own word for the job's state."""
    submit_time: Time = None
    """When SLURM took the job."""
    start_time: Time = None
    """When it started."""
    end_time: Time = None
    """When it ends or ended, as SLURM granted it."""
    restart_count: Annotated[int | None, Field(ge=0, json_schema_extra={"format": "int32"})] = None
    """How often SLURM restarted the job; more than 0 ends the attempt."""
    nodes: Annotated[str | None, status_text(1024)] = None
    """Its nodes, as SLURM's host list."""
    host: Annotated[str | None, status_text(253)] = None
    """Address of its first node."""
    port: Annotated[int | None, Field(ge=1, le=65535)] = None
    """Port that the engine took."""
    url: Annotated[str | None, status_text(512)] = None
    """Address by which the engine is reached; of a forward that of the tunnel supervisor."""
    forward: ForwardStatus | None = None
    """The forward that it wants, where it is not reached directly."""
    submit_started_at: Time = None
    """When sbatch was called last."""
    submissions: Annotated[int | None, Field(ge=0, json_schema_extra={"format": "int32"})] = None
    """How often sbatch was called; more than once only after an answer that was not clear."""
    last_answer: Annotated[str | None, status_text(600)] = None
    """What sbatch said last where that was not clear; absent where it said nothing."""
    same_answers: Annotated[int | None, Field(ge=0, json_schema_extra={"format": "int32"})] = None
    """How many submissions in a row were answered so, without a job that turned up. After the third
    it is taken for a refusal."""
    unsent: Annotated[int | None, Field(ge=0, json_schema_extra={"format": "int32"})] = None
    """How many tries in a row ended before anything was sent to the cluster."""
    unsent_at: Time = None
    """When the last of them ended."""
    excluded_nodes: Annotated[tuple[str, ...], status_list(16)] = ()
    """Nodes that it was submitted without, because its revision had failed there."""
    unknown_since: Time = None
    """Since when it is not clear whether a job exists; a job that is seen clears it."""
    draining_since: Time = None
    """When it was taken out of rotation to be stopped."""
    drained: Drained | None = None
    """How the wait for its requests ended; there as soon as the engine is told to end."""
    cut: Annotated[int | None, Field(ge=0, json_schema_extra={"format": "int32"})] = None
    """Requests that had not finished when the drain's budget was over."""
    terminated_at: Time = None
    """When the engine was told to end."""
    cancelled_at: Time = None
    """When scancel was sent last."""
    gate_claimed_at: Time = None
    """When its start gate was found claimed by a job that no snapshot showed."""
    gate_failed_at: Time = None
    """Since when its start gate cannot be closed."""
    work_directory: Annotated[str | None, status_text(200)] = None
    """The work directory by which it was submitted."""
    degraded_since: Time = None
    """Since when a worker that was ready fails its probes while our view of it is good."""
    probes_failed_since: Time = None
    """Since when a worker that was ready fails its probes, whether or not our view is good."""
    finished_at: Time = None
    """When the end of the job was seen."""
    ever_ready: bool | None = None
    """Whether it was ready once."""
    healthy: bool | None = None
    """Whether its probes succeed."""
    conditions: Annotated[
        tuple[ConditionModel, ...],
        status_list(16, x_kubernetes_list_type="map", x_kubernetes_list_map_keys=["type"]),
    ] = ()
    """TunnelUp."""


class SlurmJob(StatusModel):
    """One attempt of one worker on SLURM; deleting it replaces the worker."""

    api_version: str = API_VERSION
    kind: Literal["SlurmJob"] = "SlurmJob"
    metadata: ObjectMeta
    spec: SlurmJobSpec
    """The intent; never changes."""
    status: SlurmJobStatus | None = None
    """What is, written by the operator."""

    @property
    def work_directory(self) -> str | None:
        """Where its start gate is; None where that is still to be the cluster's folder.

        Attempts of releases before `spec.workDirectory` have it in their status.
        """
        before = None if self.status is None else self.status.work_directory
        return self.spec.work_directory or before
