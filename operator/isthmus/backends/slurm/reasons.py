"""What SLURM's texts mean: why a job waits, why a command failed.

Pure tables, apart from the code that runs commands; what sbatch says has a page of its own,
`sbatch_answers.py`. The return codes do not tell a refusal from an outage (both are 1), the texts
do: they come from SLURM's own table of errors (compared in the sources of 22.05 to 26.05).
"""

from __future__ import annotations

import re

from isthmus.api.conditions import PendingClass, Reason
from isthmus.api.texts import one_line

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


_OUTAGES = (
    ("Unable to contact slurm controller", Reason.CONTROLLER_UNREACHABLE),
    ("Socket timed out", Reason.CONTROLLER_TIMEOUT),
    ("Zero Bytes were transmitted", Reason.CONTROLLER_UNREACHABLE),
    ("Rate limit exceeded", Reason.RATE_LIMITED),
    ("authentication", Reason.AUTHENTICATION_FAILED),
    ("munge", Reason.AUTHENTICATION_FAILED),
    ("Could not establish a configuration source", Reason.CONFIGURATION_UNAVAILABLE),
    ("Unable to process configuration file", Reason.CONFIGURATION_UNAVAILABLE),
    ("Incompatible versions of client and server", Reason.INCOMPATIBLE_RELEASE),
)

OUTAGE_ADVICE = {
    Reason.CONTROLLER_UNREACHABLE: "slurmctld does not answer; running jobs continue.",
    Reason.CONTROLLER_TIMEOUT: "slurmctld took the connection and did not answer in time.",
    Reason.RATE_LIMITED: "slurmctld limits the commands of this user: raise commands.pollInterval.",
    Reason.AUTHENTICATION_FAILED: "Check munge, the key and the clock where the commands run.",
    Reason.CONFIGURATION_UNAVAILABLE: "Check slurm.conf or SLURM_CONF where the commands run.",
    Reason.INCOMPATIBLE_RELEASE: "Check that commands.binDir is of the cluster's release.",
    Reason.COMMAND_NOT_FOUND: "Set commands.binDir to the folder that has squeue and sbatch.",
    Reason.COMMAND_TIMEOUT: "The command was ended at its time limit (commands.timeout): slurmctld "
    "hangs, is down, or limits the commands of this user.",
    Reason.INCOMPLETE_OUTPUT: "The answer broke off; nothing is concluded from it.",
    Reason.UNKNOWN_FORMAT: "This release of SLURM prints what Isthmus cannot read: jobs continue, "
    "and nothing is concluded or submitted. Update Isthmus to a release that can, or report this.",
    Reason.WORK_DIRECTORY_UNAVAILABLE: "Check files.workDirectory of the SlurmCluster.",
    Reason.COMMAND_FAILED: "See the message of the command.",
}
"""What to do, by the reason of a `SlurmUnavailableError`."""


def outage(text: str) -> Reason | None:
    """The reason of an outage that a command's error text tells of, or None."""
    lowered = text.lower()
    return next((reason for part, reason in _OUTAGES if part.lower() in lowered), None)
