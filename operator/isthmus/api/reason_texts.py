"""What each reason means and what to do about it, in the order of the page that shows it.

Apart from the words themselves, which are read more often. `docs/reasons.md` is made from this
table by `isthmus reasons`.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from isthmus.api.reasons import Reason


class Text(NamedTuple):
    """Of one reason.

    Attributes:
        meaning: what is so, in a sentence.
        remedy: what to do, "" where there is nothing to be done.
    """

    meaning: str
    remedy: str = ""


PARTS: Final[Mapping[str, Mapping[Reason, Text]]] = {
    "The ModelDeployment": {
        Reason.ALL_WORKERS_READY: Text(
            "Every desired worker is ready and of the current revision.",
        ),
        Reason.WORKERS_NOT_READY: Text(
            "Some desired workers are not ready yet.",
            "Read the pools' own reasons in `status.pools`.",
        ),
        Reason.NO_WORKERS_READY: Text(
            "Workers are wanted and none serves: requests fail now.",
            "Read the pools' own reasons in `status.pools`.",
        ),
        Reason.WORKERS_AVAILABLE: Text("At least one worker serves."),
        Reason.WORKERS_FAILING: Text(
            "Workers start and end again, or cannot be created; the message has the cause in "
            "the scheduler's words.",
            "Read the message, then the worker's log (`kubectl logs --previous`).",
        ),
        Reason.SCALED_TO_ZERO: Text("`replicas` is 0: nothing is meant to serve."),
        Reason.SCALING_UP: Text("Workers are being added."),
        Reason.SCALING_DOWN: Text("Workers are being drained and removed."),
        Reason.ROLLOUT_STARTED: Text(
            "Event: workers of an older revision begin to be replaced; the message names the "
            "revisions.",
        ),
        Reason.ROLLOUT_IN_PROGRESS: Text("Workers of an older revision are being replaced."),
        Reason.ROLLOUT_COMPLETE: Text(
            "All workers run the current revision and nothing is left to do. Its event has "
            "the duration of the rollout.",
        ),
        Reason.INSUFFICIENT_CAPACITY: Text(
            "`replicas` is more than the pools' `maxReplicas` together.",
            "Raise a `maxReplicas`, or lower `replicas`.",
        ),
        Reason.DELETING: Text("The object is being deleted; its workers drain first."),
        Reason.INVALID_SPEC: Text(
            "The object was accepted by another schema and cannot be read now; the message "
            "names the field.",
            "Correct the field, or run the newer release that wrote it.",
        ),
        Reason.NAME_CONFLICT: Text(
            "An object with a name that Isthmus needs belongs to somebody else.",
            "Rename one of the two.",
        ),
        Reason.RECONCILE_FAILED: Text(
            "The API server refused a write; the message has its words. It is retried.",
            "Correct what the message names.",
        ),
        Reason.API_KEY_UNUSABLE: Text(
            "The Secret with the API key is missing or holds none; running workers keep the "
            "key they have.",
            "Create or correct the Secret.",
        ),
        Reason.KEY_PER_ATTEMPT: Text(
            "Each job on SLURM has an API key of its own, which opens no other worker.",
        ),
        Reason.KEY_SHARED: Text(
            "Jobs on SLURM have the deployment's API key: who learns it on one node can use "
            "all workers.",
            "The message says why, and how to have a key per job.",
        ),
    },
    "Front, routers and clients": {
        Reason.FRONT_NOT_READY: Text(
            "Workers serve, but no pod of the front before them is ready: requests fail. The "
            "message has the pods' own reason.",
            "Check the operator's settings front-image and front-pods.",
        ),
        Reason.FRONT_ROLLING_OUT: Text(
            "Pods of the front are being replaced, so that all do what `endpoint` asks for.",
            "If it does not end, look at the front's pods: front-image may be of an older release.",
        ),
        Reason.FRONT_UP_TO_DATE: Text(
            "The pods of the front understand every setting that this operator gives them.",
        ),
        Reason.FRONT_OUTDATED: Text(
            "A pod of the front is of an older release: it serves, and ignores what it does not "
            "know, such as the table of paths. It may pass administration on to the engines.",
            "Set front-image to the image of the operator's release; the pods are replaced one by "
            "one, each new one first. Where it is that image already, an older operator made the "
            "Deployment: change front-drain by a second, and it is created again.",
        ),
        Reason.CLIENT_KEYS_IN_FORCE: Text(
            "The front answers only clients with a key of `endpoint.clientKeysSecretRef`.",
        ),
        Reason.CLIENT_KEYS_UNUSABLE: Text(
            "The Secret of `endpoint.clientKeysSecretRef` is missing or has entries that are "
            "no keys: these clients are refused.",
            "Correct the entries that the message names.",
        ),
        Reason.ROUTER_IN_STEP: Text(
            "The router of `endpoint.external` holds the workers that may get requests.",
        ),
        Reason.ROUTER_UNREACHABLE: Text(
            "The router of `endpoint.external` does not answer, or refuses the operator.",
            "Check its URL and key; the message has its answer.",
        ),
    },
    "The SlurmCluster": {
        Reason.SNAPSHOT_COMPLETE: Text("squeue and sinfo answered completely."),
        Reason.NOT_OBSERVED_YET: Text(
            "There has been no complete answer of the cluster since this operator started.",
            "Wait one poll interval.",
        ),
        Reason.SNAPSHOT_STALE: Text(
            "The last complete answer is too old: nothing is changed there until there is a "
            "new one.",
            "Check that slurmctld answers squeue in time.",
        ),
        Reason.CONTROLLER_UNREACHABLE: Text(
            "slurmctld cannot be reached; running jobs continue.",
            "Ask the cluster's administrators.",
        ),
        Reason.CONTROLLER_TIMEOUT: Text(
            "slurmctld accepted the connection and did not answer in time.",
            "Ask the cluster's administrators; it may be overloaded.",
        ),
        Reason.RATE_LIMITED: Text(
            "slurmctld limits the commands of this user.",
            "Raise `commands.pollInterval`.",
        ),
        Reason.AUTHENTICATION_FAILED: Text(
            "munge or SLURM refuses the user of the commands.",
            "Check munged, its key and the clock on the login host, and the user's account.",
        ),
        Reason.CONFIGURATION_UNAVAILABLE: Text(
            "SLURM's commands find no usable configuration.",
            "Check slurm.conf or SLURM_CONF on the login host.",
        ),
        Reason.INCOMPATIBLE_RELEASE: Text(
            "SLURM's commands are of another release than slurmctld.",
            "Set `commands.binDir` to the commands of the cluster's release.",
        ),
        Reason.COMMAND_NOT_FOUND: Text(
            "There are no SLURM commands in `commands.binDir`.",
            "Set it to the folder that has squeue and sbatch.",
        ),
        Reason.COMMAND_TIMEOUT: Text(
            "A command did not end within `commands.timeout`.",
            "Check that slurmctld answers, or raise the limit.",
        ),
        Reason.COMMAND_FAILED: Text(
            "A command failed for another cause; the message has its words.",
        ),
        Reason.INCOMPLETE_OUTPUT: Text(
            "A command's answer was cut off; nothing is concluded from it.",
            "If it persists, check what the login host prints and how many jobs squeue lists.",
        ),
        Reason.UNKNOWN_FORMAT: Text(
            "This release of SLURM prints what Isthmus cannot read; the message has release "
            "and field.",
            "Update Isthmus to a release that can, or report it.",
        ),
        Reason.RECORDS_UNREADABLE: Text(
            "SLURM lists a few jobs in a form that cannot be read: nothing is concluded about "
            "these.",
            "Update Isthmus to a release that can read them, or report it.",
        ),
        Reason.NODES_LISTED: Text("sinfo lists the nodes of the cluster."),
        Reason.NODES_HIDDEN: Text(
            "The site hides its nodes (PrivateData=nodes): jobs continue, the states of nodes "
            "are unknown.",
            "Ask for the cluster's user to be made an Operator in SLURM.",
        ),
        Reason.WORK_DIRECTORY_UNAVAILABLE: Text(
            "`files.workDirectory` is missing or not writable on the login host.",
            "Create it, or correct the path.",
        ),
        Reason.SSH_UNREACHABLE: Text(
            "No login host accepts or keeps a connection.",
            "Check `login.ssh.hosts`, `port` and sshd there.",
        ),
        Reason.SSH_LOGIN_REQUIRED: Text(
            "The login host refuses the key, or asks for more than a key.",
            "Check `login.ssh.user`, the key and the account.",
        ),
        Reason.HOST_KEY_MISMATCH: Text(
            "The login host shows a key that is not in `login.ssh.knownHostsRef`.",
            "Ask the site whether its key was changed before you accept the new one.",
        ),
        Reason.SSH_SESSIONS_REFUSED: Text(
            "The login host runs no command over the operator's connection.",
            "Ask for `MaxSessions` of at least 1.",
        ),
        Reason.SECRET_MISSING: Text(
            "A Secret that the object refers to is missing.",
            "Create it; the message says how.",
        ),
        Reason.CLUSTER_NOT_FOUND: Text(
            "`clusterRef` names no SlurmCluster.",
            "Create it, or correct the reference.",
        ),
        Reason.CLUSTER_NOT_ALLOWED: Text(
            "The SlurmCluster does not admit this namespace, or its `login.local` is not "
            "allowed in this installation.",
            "Ask its administrator; the message says what to set.",
        ),
        Reason.DEPLOYMENT_GONE: Text(
            "A job without a SlurmJob, whose ModelDeployment does not exist.",
            "`orphanPolicy` decides; cancel it if nobody needs it.",
        ),
        Reason.ATTEMPT_UNKNOWN: Text(
            "A job without a SlurmJob, whose ModelDeployment exists.",
            "`orphanPolicy` decides; cancel it if nobody needs it.",
        ),
    },
    "Submission and queue": {
        Reason.SLURM_JOB_REFUSED: Text(
            "A SlurmJob that the operator did not make: it is ignored.",
            "Delete it.",
        ),
        Reason.WAITING_TO_SUBMIT: Text("The intent is recorded; sbatch has not run yet."),
        Reason.SUBMITTING: Text("sbatch is running or has just run."),
        Reason.JOB_SUBMITTED: Text("Event: SLURM took the job; the message has its id."),
        Reason.SUBMIT_UNKNOWN: Text(
            "sbatch gave no clear answer; the job is looked for before anything is resubmitted.",
        ),
        Reason.NOT_SUBMITTED: Text(
            "Nothing could be sent to the cluster, so there is no job; it is retried after a "
            "pause.",
            "Read the SlurmCluster's condition SlurmReachable.",
        ),
        Reason.SUBMIT_REFUSED: Text(
            "SLURM, sbatch or the site's rules refused the job; the message has their words.",
            "Correct the pool's `slurm` fields.",
        ),
        Reason.NODES_EXCLUDED: Text(
            "The revision failed twice within ten minutes on a node: its next attempts avoid "
            "that node for half an hour.",
            "See what is wrong with the node.",
        ),
        Reason.PENDING_RESOURCES: Text("The job waits for nodes or for its priority."),
        Reason.PENDING_QUOTA: Text(
            "A limit of the account, QOS, user or namespace is used up.",
            "Free something, or request a higher limit.",
        ),
        Reason.PENDING_HELD: Text(
            "The job is held.",
            "Release it (`scontrol release`) or delete it.",
        ),
        Reason.PENDING_NEVER: Text(
            "The worker can never start as it is specified.",
            "Correct what the message names: partition, account, QOS, size or time limit.",
        ),
    },
    "A worker on SLURM": {
        Reason.JOB_STARTING: Text(
            "The job runs; its engine is loading, or its port is not published yet.",
        ),
        Reason.HEALTHY: Text(
            "Probes succeed, model and attempt agree: the worker may get requests.",
        ),
        Reason.PROBE_FAILED: Text(
            "Health probes fail; the message has the last answer.",
            "Read the engine's log.",
        ),
        Reason.LAST_IN_ROTATION: Text(
            "Probes fail and the worker is kept in rotation, because no other worker of the "
            "deployment is healthy.",
            "Check whether the operator can reach the nodes at all.",
        ),
        Reason.IDENTITY_MISMATCH: Text(
            "Another model or another attempt answers at the address: it gets no requests, and "
            "the attempt is replaced, because the other engine has seen the attempt's API key.",
            "Find out what listens on that node and port.",
        ),
        Reason.ADDRESS_REFUSED: Text(
            "Host or port of the job lie outside `network.nodeCIDRs` or `network.ports`.",
            "Correct these fields of the SlurmCluster, or the node's address in SLURM.",
        ),
        Reason.TUNNEL_ESTABLISHED: Text("The forward to the worker works."),
        Reason.TUNNEL_AWAITED: Text(
            "No tunnel supervisor holds the forward yet.",
            "Check that `isthmus tunnels` runs.",
        ),
        Reason.TUNNEL_DOWN: Text(
            "The path to the worker is broken, not the worker: it is kept, and nothing is "
            "submitted in its place.",
            "Check the login host and the tunnel supervisors.",
        ),
        Reason.TUNNEL_RESTORED: Text("The path to the worker works again."),
        Reason.JOB_SUSPENDED: Text("SLURM suspended the job; it may resume."),
        Reason.DRAINING: Text("Out of rotation: the engine finishes its requests, then ends."),
        Reason.DRAIN_TIMEOUT: Text(
            "Requests had not finished within `drain.timeout` and were interrupted.",
            "Raise `drain.timeout`, or accept it.",
        ),
        Reason.ACTION_FAILED: Text(
            "Something that is to be done about a job (submit, end, cancel) fails and is retried.",
            "The message says what fails, how often and why.",
        ),
        Reason.STARTUP_TIMEOUT: Text(
            "Not healthy within `health.startupTimeout`.",
            "Read the engine's log, or raise the limit.",
        ),
        Reason.NODE_DRAINING: Text(
            "A node is drained in SLURM, mostly by an administrator: its workers serve until their "
            "successors on other nodes do, and end then.",
        ),
        Reason.TIME_LIMIT_NEAR: Text(
            "A job nears its time limit: its worker serves until its successor does, or it ends.",
        ),
        Reason.JOB_TERMINATING: Text(
            "The job is ending and may still hold its nodes (COMPLETING).",
        ),
    },
    "The end of a job": {
        Reason.JOB_CANCELLED: Text(
            "Somebody else cancelled the job; it is replaced after a pause.",
        ),
        Reason.JOB_COMPLETED: Text(
            "The engine ended with exit code 0, which a server should not.",
            "Read the engine's log.",
        ),
        Reason.JOB_FAILED: Text(
            "The job failed; the message has the exit code.",
            "Read its log in the work directory.",
        ),
        Reason.JOB_OUT_OF_MEMORY: Text(
            "SLURM ended the job for its memory.",
            "Raise `worker.memory`.",
        ),
        Reason.JOB_TIME_LIMIT: Text(
            "The job reached its time limit and is replaced.",
            "`slurm.timeLimit` says how long it may run.",
        ),
        Reason.JOB_PREEMPTED: Text(
            "A job of higher priority took the nodes; it is replaced after a pause.",
        ),
        Reason.JOB_NODE_FAILED: Text("A node of the job failed; it is replaced."),
        Reason.JOB_REQUEUED: Text(
            "SLURM put the job back into the queue; this attempt is over and a new one is made.",
        ),
        Reason.JOB_VANISHED: Text(
            "SLURM no longer knows the job, and no record says how it ended; it is replaced.",
            "Look for the job with `sacct`.",
        ),
        Reason.WORK_DIRECTORY_UNUSABLE: Text(
            "A job could not write to `files.workDirectory` on its node.",
            "Check that the directory is mounted and writable there.",
        ),
    },
    "Pods": {
        Reason.UNSCHEDULABLE: Text(
            "No node has room for the pod; the message has the scheduler's words.",
            "Add nodes, or request less.",
        ),
        Reason.IMAGE_PULL_ERROR: Text(
            "The image cannot be pulled.",
            "Check its name and the pull secrets.",
        ),
        Reason.CONTAINER_START_ERROR: Text(
            "The engine has never run: mostly the image does not have its program.",
            "Correct `engine.image` or `engine.type`.",
        ),
        Reason.POD_SECURITY_REFUSED: Text(
            "The namespace's Pod Security level refuses the pods.",
            "Set `kubernetes.securityContext`, or have the level changed.",
        ),
    },
}
"""By the part of the page; each reason stands in one."""
