"""Condition types, reasons, pending classes and job phases: the words of every status.

One module, so that a word means the same wherever it is read: in a condition, in a column of
`kubectl get`, in an event and in a metric's label. Condition types are few and positive; all
other names are reasons. Each reason's comment says what it means and what to do about it.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Literal, NotRequired, TypedDict

from isthmus.api.texts import cut
from isthmus.api.times import rfc3339

ConditionStatus = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """Condition types of all kinds; True is always the good state."""

    READY = "Ready"
    """All desired workers are ready and of the current revision; on a SlurmJob: it serves."""

    AVAILABLE = "Available"
    """At least one worker serves (or none is wanted)."""

    PROGRESSING = "Progressing"
    """The wanted state is reached or is being approached; False: stuck, a person is needed."""

    SLURM_REACHABLE = "SlurmReachable"
    """The last look at SLURM was complete and is recent; False: nothing is changed there."""

    NODES_VISIBLE = "NodesVisible"
    """On a SlurmCluster: SLURM shows its nodes; False: the site hides them, and the message says
    what cannot be told without them."""

    TUNNEL_UP = "TunnelUp"
    """On a SlurmJob: the way through its forward works; absent where none is needed yet."""

    TUNNELS_UP = "TunnelsUp"
    """On a ModelDeployment: the forwards of all its workers work; absent without any."""

    ROUTER_REACHABLE = "RouterReachable"
    """On a ModelDeployment with endpoint.type External: its router holds its workers."""

    KEYS_SEPARATE = "KeysSeparate"
    """On a ModelDeployment with an API key and a pool on SLURM: each job there has its own."""

    CLIENT_KEYS_IN_FORCE = "ClientKeysInForce"
    """On a ModelDeployment with endpoint.clientKeysSecretRef: its front asks clients for keys."""

    READABLE = "Readable"
    """There only while it is False: some of the object's fields cannot be read, and nothing new is
    made from it; what runs is followed and can be ended."""

    ACTIONS_SUCCEED = "ActionsSucceed"
    """On a SlurmJob, there only while it is False: something that is to be done about its job
    fails, and is tried again. The message says what, how often, and whose words they are."""


class Reason(StrEnum):
    """Every reason that a condition, a phase or an event may carry."""

    # --- ModelDeployment as a whole
    ALL_WORKERS_READY = "AllWorkersReady"
    """Every desired worker is ready and of the current revision."""
    WORKERS_NOT_READY = "WorkersNotReady"
    """Some desired workers are not ready yet; the pools say why."""
    NO_WORKERS_READY = "NoWorkersReady"
    """Workers are wanted and none serves: requests fail now."""
    WORKERS_AVAILABLE = "WorkersAvailable"
    """At least one worker serves."""
    ROUTER_IN_STEP = "RouterInStep"
    """The router of endpoint.external holds what the membership holds."""
    ROUTER_UNREACHABLE = "RouterUnreachable"
    """The router of endpoint.external does not answer, or refuses us: the message says what."""
    FRONT_NOT_READY = "FrontNotReady"
    """Workers serve, but no pod of the front before them is ready: requests fail. The message
    has the pods' own reason; their image is the operator's setting front-image, and what else they
    need its setting front-pods."""
    FRONT_ROLLING_OUT = "FrontRollingOut"
    """Pods of the front are being replaced, so that all do what endpoint asks for; where that does
    not end, look at the front's pods: the setting front-image may be of an older release."""
    CLIENT_KEYS_IN_FORCE = "ClientKeysInForce"
    """The front answers only clients with a key of endpoint.clientKeysSecretRef."""
    CLIENT_KEYS_UNUSABLE = "ClientKeysUnusable"
    """The Secret of endpoint.clientKeysSecretRef is missing or has entries that are no keys: these
    clients are refused; the message says which."""
    SCALED_TO_ZERO = "ScaledToZero"
    """`replicas` is 0: nothing is meant to serve."""
    SCALING_UP = "ScalingUp"
    """Workers are being added."""
    SCALING_DOWN = "ScalingDown"
    """Workers are being drained and removed."""
    ROLLOUT_IN_PROGRESS = "RolloutInProgress"
    """Workers of an older revision are being replaced."""
    ROLLOUT_COMPLETE = "RolloutComplete"
    """All workers run the current revision and nothing is left to do."""
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    """No progress within `health.startupTimeout`: read the pools' reasons and the workers' logs."""
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"
    """`replicas` is more than the pools' `maxReplicas` together: raise one of them."""
    DELETING = "Deleting"
    """The object is being deleted; its workers drain first."""
    NAME_CONFLICT = "NameConflict"
    """An object of a name that we need belongs to somebody else: rename one of the two."""
    API_KEY_UNUSABLE = "ApiKeyUnusable"
    """The Secret with the API key is missing or holds none; what runs keeps the key that it has."""
    KEY_PER_ATTEMPT = "KeyPerAttempt"
    """Each job on SLURM has an API key of its own, which opens no other worker."""
    KEY_SHARED = "KeyShared"
    """Jobs on SLURM have the deployment's API key: who learns it on one node can use all workers;
    the message says why, and how to have that otherwise."""
    ACTION_FAILED = "ActionFailed"
    """What is to be done about a job (submit, end, cancel) fails and is tried again."""
    INVALID_SPEC = "InvalidSpec"
    """The object passed an older schema but cannot be read now; the message names the field."""
    RECONCILE_FAILED = "ReconcileFailed"
    """A write was refused by the API server; the message has its words. Tried again."""

    # --- SLURM clusters
    SNAPSHOT_COMPLETE = "SnapshotComplete"
    """squeue and sinfo answered completely."""
    NOT_OBSERVED_YET = "NotObservedYet"
    """No complete look at the cluster since this operator started: wait a poll interval."""
    SNAPSHOT_STALE = "SnapshotStale"
    """The last complete look is older than three poll intervals."""
    CONTROLLER_UNREACHABLE = "ControllerUnreachable"
    """slurmctld cannot be reached or does not answer: ask the cluster's administrators."""
    COMMAND_NOT_FOUND = "CommandNotFound"
    """No SLURM commands under `commands.binDir`: correct it."""
    COMMAND_TIMEOUT = "CommandTimeout"
    """A command did not end within `commands.timeout`."""
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    """munge or SLURM refuses our user: check munged on the login host and the user's account."""
    OUTPUT_INCOMPLETE = "OutputIncomplete"
    """A command's answer was cut off; nothing is concluded from it."""
    UNKNOWN_FORMAT = "UnknownFormat"
    """This release of SLURM prints what Isthmus cannot read; the message has release and field."""
    RECORDS_UNREADABLE = "RecordsUnreadable"
    """SLURM shows a few jobs in a form that cannot be read: nothing is concluded about these."""
    NODES_LISTED = "NodesListed"
    """sinfo lists the nodes of the cluster."""
    NODES_HIDDEN = "NodesHidden"
    """The site hides its nodes (PrivateData=nodes): jobs go on, the states of nodes are unknown."""
    COMMAND_FAILED = "CommandFailed"
    """A command failed for another cause; the message has its words."""
    WORK_DIRECTORY_UNUSABLE = "WorkDirectoryUnusable"
    """`files.workDirectory` is missing or not writable: create it or correct the path."""
    SSH_UNREACHABLE = "SshUnreachable"
    """No login host takes or keeps a connection: check `login.ssh.hosts`, port and sshd there."""
    SSH_LOGIN_REQUIRED = "SshLoginRequired"
    """The login host does not let our key in, or asks for more: check user, key and account."""
    HOST_KEY_MISMATCH = "HostKeyMismatch"
    """The login host shows a key that is not in `login.ssh.knownHostsRef`: ask the site first."""
    SSH_SESSIONS_REFUSED = "SshSessionsRefused"
    """The login host runs no command over our connection: ask for `MaxSessions` of at least 1."""
    SECRET_MISSING = "SecretMissing"
    """A Secret that the object refers to is missing; the message says how to create it."""
    DEPLOYMENT_GONE = "DeploymentGone"
    """A job without a SlurmJob, whose ModelDeployment does not exist: `orphanPolicy` decides."""
    ATTEMPT_UNKNOWN = "AttemptUnknown"
    """A job without a SlurmJob, whose ModelDeployment exists: `orphanPolicy` decides."""
    CLUSTER_NOT_FOUND = "ClusterNotFound"
    """`clusterRef` names no SlurmCluster: create it or correct the reference."""
    CLUSTER_NOT_ALLOWED = "ClusterNotAllowed"
    """The SlurmCluster's `access` does not admit this namespace (ask its administrator), or its
    `login.local` is not what this installation allows: the message says what to set."""

    SLURM_JOB_REFUSED = "SlurmJobRefused"
    """A SlurmJob that the operator did not make: nothing is done for it. Delete it."""

    # --- a job's way through SLURM
    WAITING_TO_SUBMIT = "WaitingToSubmit"
    """The intent is recorded; sbatch has not run yet."""
    SUBMITTING = "Submitting"
    """sbatch is running or has just run."""
    SUBMIT_UNKNOWN = "SubmitUnknown"
    """sbatch gave no clear answer; the job is looked for before anything is submitted again."""
    NOT_SUBMITTED = "NotSubmitted"
    """Nothing could be sent to the cluster, so there is no job; tried again after a pause."""
    SUBMIT_REFUSED = "SubmitRefused"
    """SLURM, sbatch or the site's rules refused the job, or gave the same unclear answer again and
    again; the message has their words. Correct the pool's slurm fields."""
    NODES_EXCLUDED = "NodesExcluded"
    """The revision failed twice within ten minutes on a node: its next attempts leave that out for
    half an hour. See what is wrong there."""
    PENDING_RESOURCES = "PendingResources"
    """The job waits for nodes or its priority; resolves by itself."""
    PENDING_QUOTA = "PendingQuota"
    """A limit of the account, QOS or user is used up: free something or ask for more."""
    PENDING_HELD = "PendingHeld"
    """The job is held: a person must release or delete it."""
    PENDING_NEVER = "PendingNever"
    """This job can never start as it is: correct partition, account, QOS, size or time limit."""
    JOB_STARTING = "JobStarting"
    """The job runs; its engine is loading, or its port is not published yet."""
    HEALTHY = "Healthy"
    """Probes succeed, model and attempt agree: it may get requests."""
    PROBE_FAILED = "ProbeFailed"
    """Health probes fail; the message has the last answer."""
    LAST_IN_ROTATION = "LastInRotation"
    """Its probes fail and it stays in rotation: no other worker of the deployment is known to be
    good. See whether the operator can reach the nodes at all."""
    IDENTITY_MISMATCH = "IdentityMismatch"
    """Another model or another attempt answers at the address: it gets no requests, and the attempt
    is replaced, for it was told the attempt's API key."""
    ADDRESS_REFUSED = "AddressRefused"
    """Host or port of the job lie outside `network.nodeCIDRs` or `network.ports`."""
    TUNNEL_ESTABLISHED = "TunnelEstablished"
    """The way through the forward works."""
    TUNNEL_AWAITED = "TunnelAwaited"
    """No tunnel supervisor holds the forward yet: see that `isthmus tunnels` runs."""
    TUNNEL_DOWN = "TunnelDown"
    """The way to the worker is broken, not the worker: it is kept, and nothing is submitted."""
    TUNNEL_RESTORED = "TunnelRestored"
    """The way to the worker works again."""
    JOB_SUSPENDED = "JobSuspended"
    """SLURM suspended the job; it may come back."""
    DRAINING = "Draining"
    """Out of rotation; waits for running requests, then ends."""
    DRAIN_TIMEOUT = "DrainTimeout"
    """Requests had not finished within `drain.timeout` and were cut: raise it, or accept it."""
    NODE_DRAINING = "NodeDraining"
    """A node is drained in SLURM, mostly by an administrator: its workers serve until their
    successors on other nodes do, and end then. Nothing to do."""
    TIME_LIMIT_NEAR = "TimeLimitNear"
    """A job comes to its time limit: its worker serves until its successor does. Nothing to do."""
    JOB_TERMINATING = "JobTerminating"
    """The job is ending and may still hold its nodes (COMPLETING)."""
    JOB_REMOVED = "JobRemoved"
    """We ended the job, as wanted."""
    JOB_CANCELLED = "JobCancelled"
    """Somebody else cancelled the job; it is replaced after a pause."""
    JOB_COMPLETED = "JobCompleted"
    """The engine ended by itself with exit code 0, which a server should not."""
    JOB_FAILED = "JobFailed"
    """The job failed; the message has the exit code. Read its log in the work directory."""
    JOB_OUT_OF_MEMORY = "JobOutOfMemory"
    """SLURM ended the job for its memory: raise `worker.memory`."""
    JOB_TIME_LIMIT = "JobTimeLimit"
    """The job reached its time limit and is replaced: `slurm.timeLimit` says how long it gets."""
    JOB_PREEMPTED = "JobPreempted"
    """A job of higher priority took the nodes; it is replaced after a pause."""
    JOB_NODE_FAILED = "JobNodeFailed"
    """A node of the job failed; it is replaced."""
    JOB_REQUEUED = "JobRequeued"
    """SLURM put the job back into the queue; this attempt is over and a new one is made."""
    JOB_VANISHED = "JobVanished"
    """SLURM does not know the job any more and no record says how it ended."""
    STARTUP_TIMEOUT = "StartupTimeout"
    """Not healthy within `health.startupTimeout`: raise it, or read the engine's log."""

    # --- pods
    UNSCHEDULABLE = "Unschedulable"
    """No node has room for the pod; the message has the scheduler's words."""
    IMAGE_PULL_ERROR = "ImagePullError"
    """The image cannot be pulled: check its name and the pull secrets."""
    CONTAINER_CRASH_LOOP = "ContainerCrashLoopBackOff"
    """The engine ends again and again; the message has its last words."""
    CONTAINER_OUT_OF_MEMORY = "ContainerOOMKilled"
    """The container used more than its memory limit: raise `worker.memory`."""
    CONTAINER_START_ERROR = "ContainerStartError"
    """The engine has never run: mostly the image does not have its program (correct
    `engine.image` or `engine.type`); the message has the words of who tried."""
    POD_SECURITY_REFUSED = "PodSecurityRefused"
    """The namespace's Pod Security level does not take the pods: write
    `kubernetes.securityContext`, or have the level changed."""
    POD_EVICTED = "PodEvicted"
    """The node evicted the pod; it is replaced."""
    POD_STARTING = "PodStarting"
    """The pod runs; its engine is loading."""


class PendingClass(StrEnum):
    """Why a pool has fewer workers than wanted, as a class: it decides what to do."""

    RESOURCES = "Resources"
    """SLURM has no free nodes, or others go first: wait."""
    QUOTA = "Quota"
    """A limit is used up: waiting alone does not help."""
    HELD = "Held"
    """A person must release the job."""
    NEVER = "Never"
    """The request cannot be satisfied as it is written."""
    IMAGE = "Image"
    """An image cannot be pulled."""
    UNSCHEDULABLE = "Unschedulable"
    """No Kubernetes node has room."""
    STARTUP = "Startup"
    """Workers run and their engines load."""
    FAILING = "Failing"
    """Workers start and end again."""
    SUBMISSION = "Submission"
    """Jobs are about to be submitted, or it is not clear yet whether they were."""
    UNREACHABLE = "Unreachable"
    """The scheduler cannot be seen; nothing is changed there."""


class Phase(StrEnum):
    """Where one attempt of a SLURM worker stands."""

    WAITING = "Waiting"
    """The intent is acknowledged by the API server; nothing was submitted."""
    SUBMITTING = "Submitting"
    """sbatch may be running: written before it runs."""
    SUBMIT_UNKNOWN = "SubmitUnknown"
    """sbatch ran and it is not known whether a job exists."""
    PENDING = "Pending"
    """In the queue."""
    STARTING = "Starting"
    """The job runs and the engine is not ready."""
    READY = "Ready"
    """Healthy, and model and attempt agree."""
    DEGRADED = "Degraded"
    """Was ready; now suspended or its probes fail."""
    DRAINING = "Draining"
    """Being stopped by us."""
    TERMINATING = "Terminating"
    """Ending in SLURM (COMPLETING); still holds nodes."""
    FINISHED = "Finished"
    """Ended as wanted, or cancelled by somebody, or the engine ended by itself."""
    FAILED = "Failed"
    """Refused, failed, out of memory."""
    EXPIRED = "Expired"
    """Ended by its time limit (TIMEOUT)."""
    PREEMPTED = "Preempted"
    """Gave way to a job of higher priority."""
    NODE_FAULT = "NodeFault"
    """Lost with its node."""

    @property
    def terminal(self) -> bool:
        """Whether the attempt is over for ever."""
        return self in _TERMINAL


_TERMINAL: Final = frozenset(
    {Phase.FINISHED, Phase.FAILED, Phase.EXPIRED, Phase.PREEMPTED, Phase.NODE_FAULT}
)


class Condition(TypedDict):
    """One entry of `status.conditions`, as Kubernetes writes it."""

    type: str
    status: ConditionStatus
    reason: str
    message: str
    lastTransitionTime: str
    observedGeneration: NotRequired[int]


MAX_MESSAGE: Final = 1024
"""Characters of a condition's message; longer ones are cut, the schema refuses them."""


def find_condition(
    conditions: Iterable[Condition], *, type: ConditionType | str
) -> Condition | None:
    """Return the condition of this type, None if there is none."""
    return next((one for one in conditions if one["type"] == type), None)


def set_condition(
    conditions: Iterable[Condition],
    *,
    type: ConditionType | str,
    status: bool | ConditionStatus | None,
    reason: Reason | str,
    message: str,
    now: float,
    observed_generation: int | None = None,
) -> tuple[Condition, ...]:
    """Return the conditions with one added or replaced in its place.

    `lastTransitionTime` moves only when `status` changes, so an unchanged condition comes out
    equal and causes no write.

    Args:
        conditions: the present ones, in their order.
        type: which one to set.
        status: True, False, None for "Unknown", or the word itself.
        reason: why, in one word.
        message: why, and what to do; cut at MAX_MESSAGE.
        now: seconds since the epoch; whole seconds are written.
        observed_generation: generation of the spec that was judged.
    """
    before = tuple(conditions)
    word: ConditionStatus
    if isinstance(status, str):
        word = status
    else:
        word = "Unknown" if status is None else "True" if status else "False"
    old = find_condition(before, type=type)
    changed = old is None or old["status"] != word
    new: Condition = {
        "type": str(type),
        "status": word,
        "reason": str(reason),
        "message": cut(message, limit=MAX_MESSAGE),
        "lastTransitionTime": rfc3339(int(now))
        if old is None or changed
        else old["lastTransitionTime"],
    }
    if observed_generation is not None:
        new["observedGeneration"] = observed_generation
    if old is None:
        return (*before, new)
    return tuple(new if one is old else one for one in before)
