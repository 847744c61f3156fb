"""Every name that Isthmus puts on objects: group, labels, finalizers, composed object names.

They are kept in one module because they are a contract: users select by the labels, a Service
selects by them, and a restarted operator finds its objects and its SLURM jobs again by nothing
else.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

GROUP: Final = "isthmus.dev"
"""API group of all kinds."""

VERSION: Final = "v1alpha1"
"""The one served and stored version."""

API_VERSION: Final = f"{GROUP}/{VERSION}"
"""`apiVersion` of every object of ours."""

CATEGORY: Final = "isthmus"
"""`kubectl get isthmus` lists all kinds."""

DEFAULT_OPERATOR_NAMESPACE: Final = "isthmus-system"
"""Namespace of the install; `clusterRef.namespace` defaults to it."""

# --- labels -----------------------------------------------------------------------------------

LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
"""On every object that we make, always with MANAGED_BY: the selector of everything we watch.

Kubernetes' EndpointSlice controller copies the labels of a Service to its slices, so the slices
made for our Services carry it too.
"""

MANAGED_BY: Final = "isthmus"
"""Value of LABEL_MANAGED_BY."""

LABEL_DEPLOYMENT: Final = f"{GROUP}/modeldeployment"
"""Name of the ModelDeployment that an object belongs to."""

LABEL_POOL: Final = f"{GROUP}/pool"
"""Name of the pool that a worker belongs to."""

LABEL_REVISION: Final = f"{GROUP}/revision"
"""Revision hash (see isthmus.api.revision) that a worker runs."""

LABEL_ENGINE: Final = f"{GROUP}/engine"
"""On a pod: which engine it runs (`engine.type`); absent where its template is older."""

LABEL_TRAFFIC: Final = f"{GROUP}/traffic"
"""TRAFFIC_ON while a pod may get requests; the Service selects by it, the Deployment does not.

Taking it away takes the pod out of rotation and leaves it running.
"""

TRAFFIC_ON: Final = "on"
"""Value of LABEL_TRAFFIC."""

LABEL_COMPONENT: Final = f"{GROUP}/component"
"""What a pod or object of ours is that is no worker: COMPONENT_FRONT. Workers do not carry it."""

COMPONENT_FRONT: Final = "front"
"""Value of LABEL_COMPONENT on what belongs to the front of a deployment."""

LABEL_SLOT: Final = f"{GROUP}/slot"
"""Slot of a SLURM worker in its pool: a small integer that its next attempt takes over."""

LABEL_CLUSTER: Final = f"{GROUP}/cluster"
"""Name of the SlurmCluster that a SlurmJob goes to."""

LABEL_TUNNEL_HOST: Final = f"{GROUP}/tunnel-host"
"""On a slice of a forward: the id of the tunnel supervisor that holds it and alone writes it."""

ANNOTATION_TUNNEL: Final = f"{GROUP}/tunnel"
"""On the same: TUNNEL_UP or TUNNEL_DOWN, whether the way through the forward works."""

TUNNEL_UP: Final = "up"
TUNNEL_DOWN: Final = "down"

ANNOTATION_TUNNEL_MESSAGE: Final = f"{GROUP}/tunnel-message"
"""On the same: in a sentence, what is wrong with the forward, or which way it takes."""

ANNOTATION_TUNNEL_TARGET: Final = f"{GROUP}/tunnel-target"
"""On the same: `address:port` of the engine, by which a status that was lost is found again."""

LABEL_KEY: Final = f"{GROUP}/key"
"""Digest of the API key (see isthmus.api.keys) that a worker was started with, absent without one.

On pods, Deployments, SlurmJobs, and the EndpointSlices of workers outside the cluster.
"""

ANNOTATION_KEY_SOURCE: Final = f"{GROUP}/key-source"
"""On a SlurmJob whose key is its own: digest of the deployment's key from which it is derived.

Absent where the attempt has the deployment's key itself.
"""

ANNOTATION_REPLACES: Final = f"{GROUP}/replaces"
"""On a SlurmJob: name of the one whose successor it is; that one ends when this one serves.

No field of its spec: a supervisor of an older release sets a SlurmJob aside whose spec has a field
that it does not know, and the successor would be reached by nobody.
"""

ANNOTATION_CURRENT_KEY: Final = f"{GROUP}/current-key"
"""On the Secret of worker keys: digest of the key that new workers get."""

ANNOTATION_SHARED_KEY: Final = f"{GROUP}/shared-key"
"""On the same: digest of a key that jobs share, of which others derived theirs before: the latter
are of an older revision."""

ANNOTATION_DEPLOYMENT_KEYS: Final = f"{GROUP}/deployment-keys"
"""On the Secret of worker keys: JSON, name of a Deployment to the digest of its pods' key."""

KEY_SEED_SECRET: Final = "isthmus-key-seed"
"""Name of the Secret with the installation's own secret, in the operator's namespace."""

# --- annotations of pods ------------------------------------------------------------------------

ANNOTATION_DRAINING_SINCE: Final = f"{GROUP}/draining-since"
"""On a pod that was taken out of rotation to be removed: since when. It survives the operator."""

ANNOTATION_DRAINED_AT: Final = f"{GROUP}/drained-at"
"""On such a pod once its requests are done or its budget is over: it may be removed."""

ANNOTATION_REQUESTS_CUT: Final = f"{GROUP}/requests-cut"
"""On such a pod whose budget ended before its requests did: how many there were."""

ANNOTATION_DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
"""Of Kubernetes: a ReplicaSet that shrinks deletes the pods of the lowest cost first."""

# --- finalizers -------------------------------------------------------------------------------

FINALIZER_DEPLOYMENT: Final = f"{GROUP}/modeldeployment"
"""On a ModelDeployment until its workers are drained and gone."""

FINALIZER_SLURM_JOB: Final = f"{GROUP}/slurm-job"
"""On a SlurmJob until its job in SLURM is surely over."""

FINALIZER_SLURM_CLUSTER: Final = f"{GROUP}/slurm-cluster"
"""On a SlurmCluster while any SlurmJob names it."""

# --- bounds of names --------------------------------------------------------------------------

MAX_DEPLOYMENT_NAME: Final = 40
"""Characters of a ModelDeployment's name: what we append must still fit everywhere."""

MAX_POOL_NAME: Final = 15
"""Characters of a pool's name."""

MAX_WORKLOAD_NAME: Final = 46
"""Characters of the name of a Deployment whose pods are known by their names.

A pod is called `<Deployment>-<hash of ten>-<five>`, and the API server cuts what stands before the
five characters at 58: of a longer name the last parts, by which the front finds the Deployment and
with it the worker's key, would be lost.
"""

IDENTITY_MODEL_PREFIX: Final = "isthmus-attempt-"
"""A vLLM worker outside the cluster serves one more model name, this prefix and its attempt.

It tells which attempt answers at an address, so users may not take names that begin with it.
"""


def identity_model_name(attempt: str) -> str:
    """Return the additional served model name by which a worker of `attempt` is known."""
    return IDENTITY_MODEL_PREFIX + attempt


def revision_object_name(*, deployment: str, pool: str, revision: str) -> str:
    """Return the name of the ControllerRevision of one (pool, revision).

    At most 40 + 15 + 10 + 2 = 67 characters; the kind allows 253.
    """
    return f"{deployment}-{pool}-{revision}"


def workload_name(*, deployment: str, pool: str, revision: str) -> str:
    """Return the name of the Deployment of one (pool, revision), at most MAX_WORKLOAD_NAME long.

    Of a name that would be longer the front part is cut; the revision alone tells it from others,
    for the names of deployment and pool are part of that hash.
    """
    room = MAX_WORKLOAD_NAME - len(revision) - 1
    return f"{f'{deployment}-{pool}'[:room].rstrip('-.')}-{revision}"


def front_name(deployment: str) -> str:
    """Return the name of the front's Deployment, ServiceAccount, Role, RoleBinding and budget."""
    return f"{deployment}-front"


def membership_service(deployment: str, *, managed: bool) -> str:
    """Return the name of the Service whose EndpointSlices hold the workers.

    With a front of ours, the Service of the deployment's own name selects the front's pods, and
    the workers stand behind a second one.
    """
    return f"{deployment}-workers" if managed else deployment


def api_key_secret(deployment: str) -> str:
    """Return the name of the Secret that is made for a deployment's API key."""
    return f"{deployment}-api-key"


def worker_keys_secret(deployment: str) -> str:
    """Return the name of the Secret that holds each worker's key under its digest."""
    return f"{deployment}-worker-keys"


def slurm_job_object_name(*, deployment: str, pool: str, slot: int, attempt: str) -> str:
    """Return the name of the SlurmJob object of one attempt."""
    return f"{deployment}-{pool}-{slot}-{attempt}"


def tunnel_slice_name(*, slurm_job: str, host: str) -> str:
    """Return the name of the EndpointSlice of one forward: each supervisor has its own."""
    return f"{slurm_job}-{host}"


def deployment_hash(*, namespace: str, name: str, uid: str) -> str:
    """Return ten hexadecimal characters that stand for one ModelDeployment object.

    The uid is part of it: an object that was deleted and made again is another object, and the
    jobs of the old one are not silently its own.
    """
    return hashlib.sha256(f"{namespace}/{name}/{uid}".encode()).hexdigest()[:10]


def slurm_job_name(
    *,
    deployment: str,
    installation_id: str,
    namespace: str,
    uid: str,
    slot: int,
    attempt: str,
) -> str:
    """Return the name of a job in SLURM, which alone must tell whose it is.

    `<deployment>-<installation id>-<hash of namespace/name/uid>-<slot>-<attempt>`: the comment of
    a job holds the same in clear, but some sites rewrite comments.
    """
    return SlurmJobName(
        deployment=deployment,
        installation_id=installation_id,
        deployment_hash=deployment_hash(namespace=namespace, name=deployment, uid=uid),
        slot=slot,
        attempt=attempt,
    ).text


@dataclass(frozen=True, slots=True)
class SlurmJobName:
    """The parts of a job name made by `slurm_job_name`."""

    deployment: str
    installation_id: str
    deployment_hash: str
    slot: int
    attempt: str

    @property
    def text(self) -> str:
        """The whole name."""
        owner = f"{self.deployment}-{self.installation_id}-{self.deployment_hash}"
        return f"{owner}-{self.slot}-{self.attempt}"


_SLURM_JOB_NAME: Final = re.compile(
    r"(?P<deployment>[a-z0-9]([-a-z0-9.]*[a-z0-9])?)-(?P<installation>[a-z0-9]{8})"
    r"-(?P<identity>[0-9a-f]{10})-(?P<slot>[0-9]{1,3})-(?P<attempt>[a-z0-9]{6})"
)
"""Nothing else is a name of ours: what is shown, compared and given to scancel has this form."""


def parse_slurm_job_name(name: str) -> SlurmJobName | None:
    """Return the parts of a job name of ours, None for a name that has another form.

    Compare `installation_id` as a whole: another installation's jobs have the same form.
    """
    found = _SLURM_JOB_NAME.fullmatch(name)
    if found is None:
        return None
    return SlurmJobName(
        deployment=found["deployment"],
        installation_id=found["installation"],
        deployment_hash=found["identity"],
        slot=int(found["slot"]),
        attempt=found["attempt"],
    )
