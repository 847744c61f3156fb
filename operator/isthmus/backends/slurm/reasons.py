"""What SLURM's texts mean: why a job waits, why sbatch refused, why a command failed.

Pure tables, apart from the code that runs commands. The return codes do not tell a refusal from an
outage (both are 1), the texts do: they come from SLURM's own table of errors (compared in the
sources of 22.05 to 26.05). What is not listed is never taken for an answer of slurmctld.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from isthmus.api.conditions import PendingClass
from isthmus.api.texts import one_line
from isthmus.backends.slurm.records import Refused

_HELD = frozenset(
    {"JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue", "JobLaunchFailure", "SpecialExit"}
)
_NEVER = frozenset(
    {
        "BadConstraints",
        "DependencyNeverSatisfied",
        "PartitionTimeLimit",
        "PartitionNodeLimit",
        "PartitionConfig",
        "AccountNotAllowed",
        "QOSNotAllowed",
        "InvalidAccount",
        "InvalidQOS",
        "ReservationDeleted",
        "ReservationInvalid",
        "MaxMemPerLimit",
        "DeadLine",
    }
)
_QUOTA = re.compile(r"QOS|Assoc|JobArrayTaskLimit$|Max\w+Per(Account|User)")
_PER_JOB = re.compile(
    r"(QOS|Assoc|Max)\w*Per(Job|Node)|QOSMin"
)  # of one job: others' ends are no help
_UNBLOCKED_BY = {
    PendingClass.RESOURCES: "a node with the free resources that the job asks for",
    PendingClass.QUOTA: "a running job of this account or QOS that ends, or a higher limit",
    PendingClass.HELD: "scontrol release by the user or an administrator of the cluster",
    PendingClass.NEVER: "another specification: SLURM cannot start this job as it is",
}


def first_word(reason: str) -> str:
    """The part of a reason that is stable over releases: `ReqNodeNotAvail, May be…` -> the first.

    squeue separates the words with blanks, scontrol with underscores.
    """
    words = re.split(r"[\s,:(_]+", reason.strip(), maxsplit=1)
    return words[0]


def spoken(reason: str) -> str:
    """A reason for a message: its stable word, or all of one that is a sentence.

    Such as `Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority …`.
    """
    if re.match(r"[^\s,:(_]+[\s_]+[a-z]", reason.strip()) is None:
        return first_word(reason)
    return one_line(reason.replace("_", " "), limit=120)


def classify(reason: str) -> PendingClass:
    """The kind of a pending job's reason; what is unknown is taken to resolve itself.

    `PartitionConfig` also shows for the first seconds of healthy jobs: see `never_after`.
    """
    word = first_word(reason)
    if word in _HELD or ("requeued" in reason and "held" in reason):
        return PendingClass.HELD
    if word in _NEVER or _PER_JOB.match(word):
        return PendingClass.NEVER
    if _QUOTA.match(word):
        return PendingClass.QUOTA
    return PendingClass.RESOURCES


def never_after(reason: str) -> float:
    """How many seconds a reason of class `Never` must last before it is believed."""
    return 60.0 if first_word(reason) == "PartitionConfig" else 10.0


def unblocked_by(reason: str) -> str:
    """What would let the job start, as a phrase for the status of a pool."""
    return _UNBLOCKED_BY[classify(reason)]


@dataclass(frozen=True, slots=True)
class _Refusal:
    text: str
    reason: str
    advice: str


_REFUSALS = (
    _Refusal(
        "QOSMaxSubmitJobPerUserLimit",
        "QOSMaxSubmitJobPerUserLimit",
        "Wait for jobs of this user to end, or ask for a higher limit of the QOS.",
    ),
    _Refusal(
        "AssocMaxSubmitJobLimit",
        "AssocMaxSubmitJobLimit",
        "Wait for jobs of this account to end, or ask for a higher limit of the account.",
    ),
    _Refusal(
        "Job violates accounting/QOS policy",
        "PolicyLimit",
        "Ask for less GPUs or time, or have the limit of the account or QOS raised.",
    ),
    _Refusal(
        "Invalid partition name specified",
        "InvalidPartition",
        "Name a partition that `sinfo` lists in slurm.partitions.",
    ),
    _Refusal(
        "User's group not permitted to use this partition",
        "PartitionNotPermitted",
        "Name another partition, or ask for access to this one.",
    ),
    _Refusal(
        "Required partition not available",
        "PartitionNotAvailable",
        "Name another partition, or wait until an administrator enables this one.",
    ),
    _Refusal(
        "Requested partition configuration not available now",
        "PartitionLimits",
        "Ask for what the limits of the partition allow (`scontrol show partition`).",
    ),
    _Refusal(
        "Invalid account or account/partition combination specified",
        "InvalidAccount",
        "Name an account that may use the partition (`sacctmgr show associations`).",
    ),
    _Refusal(
        "Invalid qos specification",
        "InvalidQos",
        "Name a QOS that the account may use (`sacctmgr show associations`).",
    ),
    _Refusal(
        "Requested node configuration is not available",
        "NodeConfigurationNotAvailable",
        "No node of the partition has that many GPUs, CPUs or that much memory, or all nodes "
        "that have are excluded: ask for less per node.",
    ),
    _Refusal(
        "Invalid node name specified",
        "InvalidNodeName",
        "Remove the node that does not exist from --nodelist or --exclude.",
    ),
    _Refusal(
        "Requested time limit is invalid",
        "InvalidTimeLimit",
        "Ask for a time limit within the partition's MaxTime.",
    ),
    _Refusal(
        "Time limit specification required",
        "InvalidTimeLimit",
        "Set slurm.timeLimit: this site refuses jobs without one.",
    ),
    _Refusal(
        "Invalid time-min specification",
        "InvalidTimeLimit",
        "Ask for a minimum time below the time limit.",
    ),
    _Refusal(
        "Invalid generic resource (gres) specification",
        "InvalidGres",
        "Check site.gpuDirective and site.gpuTypes of the SlurmCluster against `sinfo -o %G`.",
    ),
    _Refusal(
        "Invalid feature specification",
        "InvalidConstraint",
        "Name features that `sinfo -o %f` lists in --constraint.",
    ),
    _Refusal(
        "Access denied to requested reservation",
        "InvalidReservation",
        "Name another reservation, or ask for access to this one.",
    ),
    _Refusal(
        "Requested reservation is invalid",
        "InvalidReservation",
        "Name a reservation that `scontrol show reservation` lists.",
    ),
    _Refusal(
        "Memory required by task is not available",
        "MemoryNotAvailable",
        "Ask for less memory per node.",
    ),
    _Refusal("CPU count", "InvalidCpuCount", "Ask for less CPUs per node."),
    _Refusal("Node count specification invalid", "InvalidNodeCount", "Ask for less nodes."),
    _Refusal(
        "Access/permission denied",
        "PermissionDenied",
        "Check that the cluster's user may submit with this account, QOS and partition.",
    ),
    _Refusal("unrecognized option", "InvalidOption", "Remove the option from sbatchOptions."),
    _Refusal("sbatch --help", "InvalidOption", "Correct the option in sbatchOptions."),
    _Refusal("error: Invalid --", "InvalidOption", "Correct the option in sbatchOptions."),
)

_OUTAGES = (
    ("Unable to contact slurm controller", "ControllerUnreachable"),
    ("Socket timed out", "ControllerTimeout"),
    ("Zero Bytes were transmitted", "ControllerUnreachable"),
    ("Rate limit exceeded", "RateLimited"),
    ("authentication", "AuthenticationFailed"),
    ("munge", "AuthenticationFailed"),
    ("Could not establish a configuration source", "ConfigurationUnavailable"),
    ("Unable to process configuration file", "ConfigurationUnavailable"),
    ("Incompatible versions of client and server", "IncompatibleRelease"),
)

OUTAGE_ADVICE = {
    "ControllerUnreachable": "slurmctld does not answer; running jobs go on.",
    "ControllerTimeout": "slurmctld took the connection and did not answer in time.",
    "RateLimited": "slurmctld limits the commands of this user: raise commands.pollInterval.",
    "AuthenticationFailed": "Check munge, the key and the clock where the commands run.",
    "ConfigurationUnavailable": "Check slurm.conf or SLURM_CONF where the commands run.",
    "IncompatibleRelease": "Check that commands.binDir is of the cluster's release.",
    "CommandNotFound": "Set commands.binDir to the folder that has squeue and sbatch.",
    "CommandTimeout": "The command was ended at its time limit (commands.timeout): slurmctld "
    "hangs, is down, or limits the commands of this user.",
    "IncompleteOutput": "The answer broke off; nothing is concluded from it.",
    "UnknownFormat": "This release of SLURM prints what Isthmus cannot read: jobs go on, and "
    "nothing is concluded or submitted. Take a release of Isthmus that knows it, or report this.",
    "WorkDirectoryUnavailable": "Check files.workDirectory of the SlurmCluster.",
    "CommandFailed": "See the message of the command.",
}
"""What to do, by the reason word of a `SlurmUnavailableError`."""


def outage(text: str) -> str | None:
    """The reason word of an outage that a command's error text tells of, or None."""
    lowered = text.lower()
    return next((reason for part, reason in _OUTAGES if part.lower() in lowered), None)


def refusal(text: str) -> Refused | None:
    """The refusal that sbatch's error text tells of, or None where it is not known to be one.

    A text that also speaks of an outage is no refusal: sbatch may have tried more than once.
    """
    if outage(text) is not None:
        return None
    for known in _REFUSALS:
        if known.text in text:
            return Refused(reason=known.reason, message=f"{one_line(text)} {known.advice}")
    return None
