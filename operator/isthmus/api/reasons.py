"""Every reason that a status, a condition or an event can show: a closed set of words.

Apart from the condition types, and with nothing but the words, so that an alert or a metric can be
written from this page: a test walks all producers, and none says a word that is not here. What each
means and what to do about it is in `reason_texts.py`, and in `docs/reasons.md`, made from that.
Words of SLURM, of Kubernetes and of engines are no members: they stand in messages and in a pool's
`pending.reason`.
"""

from enum import StrEnum


class Reason(StrEnum):
    """One word in CamelCase; the comments are the parts of the page of reasons."""

    # --- The ModelDeployment
    ALL_WORKERS_READY = "AllWorkersReady"
    WORKERS_NOT_READY = "WorkersNotReady"
    NO_WORKERS_READY = "NoWorkersReady"
    WORKERS_AVAILABLE = "WorkersAvailable"
    WORKERS_FAILING = "WorkersFailing"
    SCALED_TO_ZERO = "ScaledToZero"
    SCALING_UP = "ScalingUp"
    SCALING_DOWN = "ScalingDown"
    ROLLOUT_STARTED = "RolloutStarted"
    ROLLOUT_IN_PROGRESS = "RolloutInProgress"
    ROLLOUT_COMPLETE = "RolloutComplete"
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"
    DELETING = "Deleting"
    INVALID_SPEC = "InvalidSpec"
    NAME_CONFLICT = "NameConflict"
    RECONCILE_FAILED = "ReconcileFailed"
    API_KEY_UNUSABLE = "ApiKeyUnusable"
    KEY_PER_ATTEMPT = "KeyPerAttempt"
    KEY_SHARED = "KeyShared"

    # --- Front, routers and clients
    FRONT_NOT_READY = "FrontNotReady"
    FRONT_ROLLING_OUT = "FrontRollingOut"
    FRONT_UP_TO_DATE = "FrontUpToDate"
    FRONT_OUTDATED = "FrontOutdated"
    CLIENT_KEYS_IN_FORCE = "ClientKeysInForce"
    CLIENT_KEYS_UNUSABLE = "ClientKeysUnusable"
    ROUTER_IN_STEP = "RouterInStep"
    ROUTER_UNREACHABLE = "RouterUnreachable"

    # --- The SlurmCluster
    SNAPSHOT_COMPLETE = "SnapshotComplete"
    NOT_OBSERVED_YET = "NotObservedYet"
    SNAPSHOT_STALE = "SnapshotStale"
    CONTROLLER_UNREACHABLE = "ControllerUnreachable"
    CONTROLLER_TIMEOUT = "ControllerTimeout"
    RATE_LIMITED = "RateLimited"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    CONFIGURATION_UNAVAILABLE = "ConfigurationUnavailable"
    INCOMPATIBLE_RELEASE = "IncompatibleRelease"
    COMMAND_NOT_FOUND = "CommandNotFound"
    COMMAND_TIMEOUT = "CommandTimeout"
    COMMAND_FAILED = "CommandFailed"
    INCOMPLETE_OUTPUT = "IncompleteOutput"
    UNKNOWN_FORMAT = "UnknownFormat"
    RECORDS_UNREADABLE = "RecordsUnreadable"
    NODES_LISTED = "NodesListed"
    NODES_HIDDEN = "NodesHidden"
    WORK_DIRECTORY_UNAVAILABLE = "WorkDirectoryUnavailable"
    SSH_UNREACHABLE = "SshUnreachable"
    SSH_LOGIN_REQUIRED = "SshLoginRequired"
    HOST_KEY_MISMATCH = "HostKeyMismatch"
    SSH_SESSIONS_REFUSED = "SshSessionsRefused"
    SECRET_MISSING = "SecretMissing"
    CLUSTER_NOT_FOUND = "ClusterNotFound"
    CLUSTER_NOT_ALLOWED = "ClusterNotAllowed"
    DEPLOYMENT_GONE = "DeploymentGone"
    ATTEMPT_UNKNOWN = "AttemptUnknown"

    # --- Submission and queue
    SLURM_JOB_REFUSED = "SlurmJobRefused"
    WAITING_TO_SUBMIT = "WaitingToSubmit"
    SUBMITTING = "Submitting"
    JOB_SUBMITTED = "JobSubmitted"
    SUBMIT_UNKNOWN = "SubmitUnknown"
    NOT_SUBMITTED = "NotSubmitted"
    SUBMIT_REFUSED = "SubmitRefused"
    NODES_EXCLUDED = "NodesExcluded"
    PENDING_RESOURCES = "PendingResources"
    PENDING_QUOTA = "PendingQuota"
    PENDING_HELD = "PendingHeld"
    PENDING_NEVER = "PendingNever"

    # --- A worker on SLURM
    JOB_STARTING = "JobStarting"
    HEALTHY = "Healthy"
    PROBE_FAILED = "ProbeFailed"
    LAST_IN_ROTATION = "LastInRotation"
    IDENTITY_MISMATCH = "IdentityMismatch"
    ADDRESS_REFUSED = "AddressRefused"
    TUNNEL_ESTABLISHED = "TunnelEstablished"
    TUNNEL_AWAITED = "TunnelAwaited"
    TUNNEL_DOWN = "TunnelDown"
    TUNNEL_RESTORED = "TunnelRestored"
    JOB_SUSPENDED = "JobSuspended"
    DRAINING = "Draining"
    DRAIN_TIMEOUT = "DrainTimeout"
    ACTION_FAILED = "ActionFailed"
    STARTUP_TIMEOUT = "StartupTimeout"
    NODE_DRAINING = "NodeDraining"
    TIME_LIMIT_NEAR = "TimeLimitNear"
    JOB_TERMINATING = "JobTerminating"

    # --- The end of a job
    JOB_CANCELLED = "JobCancelled"
    JOB_COMPLETED = "JobCompleted"
    JOB_FAILED = "JobFailed"
    JOB_OUT_OF_MEMORY = "JobOutOfMemory"
    JOB_TIME_LIMIT = "JobTimeLimit"
    JOB_PREEMPTED = "JobPreempted"
    JOB_NODE_FAILED = "JobNodeFailed"
    JOB_REQUEUED = "JobRequeued"
    JOB_VANISHED = "JobVanished"
    WORK_DIRECTORY_UNUSABLE = "WorkDirectoryUnusable"

    # --- Pods
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_ERROR = "ImagePullError"
    CONTAINER_START_ERROR = "ContainerStartError"
    POD_SECURITY_REFUSED = "PodSecurityRefused"
