"""Executes what the plan of a SlurmJob asks for, but for its submission (`submit.py`).

Each action is idempotent, or the plan had a proof that it may be done.
"""

from typing import assert_never

from isthmus.api import names
from isthmus.api.desired import ClusterReference
from isthmus.apiserver.objects import Object
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.apiserver.statuses import set_finalizer
from isthmus.slurmjob.actions import (
    Cancel,
    ConfirmGone,
    DeleteSlice,
    EnsureSlice,
    PlainAction,
    ReadPort,
    Terminate,
    WithdrawTunnels,
)
from isthmus.slurmjob.observe import Parts
from isthmus.slurmjob.sides import ApiSide, SlurmSide
from isthmus.slurmjob.slices import delete_slice, ensure_slice, withdraw_tunnels
from isthmus.slurmjob.start_gate import Closing, StartGate


class SlurmJobActions:
    """Executes actions through the gated API server and the clients of the clusters."""

    def __init__(self, *, api: ApiSide, slurm: SlurmSide) -> None:
        """Prepare."""
        self._api, self._slurm = api, slurm
        self._start_gate = StartGate(clusters=slurm.clusters, gate=api.gate)

    async def finalizer(self, raw: Object, *, present: bool) -> Object:
        """Add or remove our finalizer; the object as it is stored then."""
        return await set_finalizer(
            self._api.api,
            SLURM_JOBS,
            obj=raw,
            finalizer=names.FINALIZER_SLURM_JOB,
            present=present,
        )

    async def close_gate(self, parts: Parts) -> Closing:
        """Claim the attempt for nobody; what became of it."""
        return await self._start_gate.close(parts.job, parts.cluster, unread=parts.cluster_unread)

    async def execute(self, parts: Parts, action: PlainAction) -> None:
        """Execute one action whose outcome the next pass sees.

        Raises:
            NameTakenError: an EndpointSlice of its name is not ours.
            ApiError: as the API server answers.
            SlurmError: as the cluster answers.
        """
        api, store = self._api.api, self._api.store
        spec, reference = parts.job.spec, parts.job.spec.cluster
        self._api.gate.check()
        match action:
            case EnsureSlice(address=address, port=port):
                await ensure_slice(
                    api,
                    parts.raw,
                    deployment=spec.deployment,
                    service=parts.service,
                    address=address,
                    port=port,
                )
            case DeleteSlice():
                await delete_slice(api, store, parts.raw)
            case WithdrawTunnels():
                await withdraw_tunnels(api, store, parts.raw)
            case Terminate(job_id=job_id):
                client = self._slurm.clusters.client(reference)
                await client.terminate(job_id=job_id, job_name=spec.job_name)
            case Cancel(job_id=job_id):
                client = self._slurm.clusters.client(reference)
                await client.cancel(job_id=job_id, job_name=spec.job_name)
                self._slurm.clusters.poke(reference)
            case ReadPort(job_id=job_id):
                await self._slurm.port_files.read(
                    reference, folder=parts.folder, job_name=spec.job_name, job_id=job_id
                )
            case ConfirmGone(job_id=job_id):
                await self._confirm_gone(reference, job_id=job_id, job_name=spec.job_name)
            case _:
                assert_never(action)

    async def _confirm_gone(
        self, reference: ClusterReference, *, job_id: int, job_name: str
    ) -> None:
        """Ask the second source; another job under the same id is not ours either."""
        record = await self._slurm.clusters.client(reference).show_job(job_id)
        state = self._slurm.states.get(reference)
        if state is not None and (record is None or record.name != job_name):
            state.confirmed_gone.add((job_id, job_name))
        self._slurm.clusters.poke(reference)
