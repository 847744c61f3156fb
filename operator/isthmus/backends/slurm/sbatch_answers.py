"""What an answer of sbatch means: submitted, refused, or not clear. Pure.

Apart from `commands.py`, which runs sbatch. The texts are SLURM's own and those of the C library
(22.05, 24.11 and 26.05 have them in common). What can be listed are the words of an outage, and not
those of a refusal: a site's submit plug-in, its filters and wrappers say what they like. So:

* sbatch says "Batch job submission failed: TEXT" only after it has asked slurmctld. Where TEXT is
  no outage, slurmctld has answered, and there is no job. Before that nothing was sent.
* An sbatch that says that it tries again may have been accepted the first time, whatever the last
  answer was.
* Without words, at a time limit, killed, or with the code that ssh and wrappers give for a broken
  connection, nothing is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from isthmus.api.reasons import Reason
from isthmus.api.texts import one_line
from isthmus.backends.slurm import parsing, reasons
from isthmus.backends.slurm.parsing import Section
from isthmus.backends.slurm.records import Refused, SubmitOutcome, Submitted, Unclear

_ASKED = re.compile(r"Batch job submission failed: *(.*)")
_AGAIN = re.compile(r"retrying|trying again", re.IGNORECASE)
"""sbatch sleeps and submits once more, also after a time-out."""

_SAYS_NOTHING = re.compile(r"(Unspecified error|No error|Success|Unknown.* error.*|)\W*")
"""What stands for the number of an error that has no text: other lines say more."""

_NO_ANSWER = re.compile(
    "time[- ]?out|timed out|connection|connect to|contact (slurm|controller|primary|backup)"
    "|communication (connection|shutdown)|missing socket|network is|unreachable|no route"
    "|broken pipe|zero bytes|message (send|receive|length)|entire message|zero length"
    "|unexpected message|header lengths|would block|file descriptor|incompatible versions"
    "|authentication|munge|standby|rate limit|find an address|name or service|name resolution"
    "|resource temporarily|interrupted system|input/output error|cannot allocate|too many open",
    re.IGNORECASE,
)
"""Parts of what SLURM and the C library say where a question or its answer was lost."""

_ID_PRINTED = re.compile(r"^\s*\d+(;\S*)?\s*$|Submitted batch job", re.MULTILINE)

_MOST_CODE = 123
"""Of a program that ended by itself. `timeout` has 124 to 127, a signal has 128 and more."""

_WRONG_OPTION = re.compile(
    r"sbatch: error: (unrecognized|[Ii]nvalid) .*"
    r"|(\S*/)?sbatch: (unrecognized|invalid|option) .*"
    r'|Try "sbatch --help".*|sbatch: warning: .*|'
)
"""A line of an sbatch that does not understand an option. It ends with 255 then, and with that code
ssh and a wrapper that uses it tell of a lost connection: only where it says nothing else."""

_OF_OUTPUT = 160
_OF_ERRORS = 400


@dataclass(frozen=True, slots=True)
class _Refusal:
    text: str
    reason: str
    advice: str


_REFUSALS = (
    _Refusal(
        "QOSMaxSubmitJobPerUserLimit",
        "QOSMaxSubmitJobPerUserLimit",
        "Wait for jobs of this user to end, or request a higher limit of the QOS.",
    ),
    _Refusal(
        "AssocMaxSubmitJobLimit",
        "AssocMaxSubmitJobLimit",
        "Wait for jobs of this account to end, or request a higher limit of the account.",
    ),
    _Refusal(
        "Job violates accounting/QOS policy",
        "PolicyLimit",
        "Request fewer GPUs or less time, or have the limit of the account or QOS raised.",
    ),
    _Refusal(
        "Invalid partition name specified",
        "InvalidPartition",
        "Name a partition that `sinfo` lists in slurm.partitions.",
    ),
    _Refusal(
        "User's group not permitted to use this partition",
        "PartitionNotPermitted",
        "Name another partition, or request access to this one.",
    ),
    _Refusal(
        "Required partition not available",
        "PartitionNotAvailable",
        "Name another partition, or wait until an administrator enables this one.",
    ),
    _Refusal(
        "Requested partition configuration not available now",
        "PartitionLimits",
        "Request what the limits of the partition allow (`scontrol show partition`).",
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
        "that have are excluded: request less per node.",
    ),
    _Refusal(
        "Invalid node name specified",
        "InvalidNodeName",
        "Remove the node that does not exist from --nodelist or --exclude.",
    ),
    _Refusal(
        "Requested time limit is invalid",
        "InvalidTimeLimit",
        "Request a time limit within the partition's MaxTime.",
    ),
    _Refusal(
        "Time limit specification required",
        "InvalidTimeLimit",
        "Set slurm.timeLimit: this site refuses jobs without one.",
    ),
    _Refusal(
        "Invalid time-min specification",
        "InvalidTimeLimit",
        "Request a minimum time below the time limit.",
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
        "Name another reservation, or request access to this one.",
    ),
    _Refusal(
        "Requested reservation is invalid",
        "InvalidReservation",
        "Name a reservation that `scontrol show reservation` lists.",
    ),
    _Refusal(
        "Memory required by task is not available",
        "MemoryNotAvailable",
        "Request less memory per node.",
    ),
    _Refusal("CPU count", "InvalidCpuCount", "Request fewer CPUs per node."),
    _Refusal("Node count specification invalid", "InvalidNodeCount", "Request fewer nodes."),
    _Refusal(
        "Access/permission denied",
        "PermissionDenied",
        "Check that the cluster's user may submit with this account, QOS and partition.",
    ),
    _Refusal(
        "Unspecified error",
        "RefusedBySite",
        "The site's own rules for submissions (job_submit) refused it: do what their words ask.",
    ),
    _Refusal(
        "cli_filter plugin terminated with error",
        "RefusedBySite",
        "The site's own rules for commands (cli_filter) refused it: do what their words ask.",
    ),
    _Refusal(
        "Invalid license specification",
        "InvalidLicense",
        "Name licenses that `scontrol show licenses` lists in --licenses.",
    ),
    _Refusal("Invalid wckey specification", "InvalidWckey", "Name a wckey of this user, or none."),
    _Refusal(
        "No partition specified or system default partition",
        "InvalidPartition",
        "Name a partition in slurm.partitions: this site has no default one.",
    ),
    _Refusal(
        "More processors requested than permitted",
        "InvalidCpuCount",
        "Request fewer CPUs per node.",
    ),
    _Refusal(
        "invalid number of nodes",
        "InvalidNodeCount",
        "A worker is one node: name one node in --nodelist, or keep others away by --exclude.",
    ),
    _Refusal(
        "Unable to create job record",
        "NoRoom",
        "slurmctld takes no more jobs now (MaxJobCount): wait for jobs to end.",
    ),
    _Refusal("unrecognized option", "InvalidOption", "Remove the option from sbatchOptions."),
    _Refusal("sbatch --help", "InvalidOption", "Correct the option in sbatchOptions."),
    _Refusal("error: Invalid ", "InvalidOption", "Correct the option in sbatchOptions."),
    _Refusal("error: unrecognized --", "InvalidOption", "Correct the option in sbatchOptions."),
    _Refusal("error: invalid ", "InvalidOption", "Correct the option in sbatchOptions."),
)

_UNKNOWN = _Refusal(
    "",
    "RefusedBySlurm",
    "Correct what the words name in the pool's slurm fields or sbatchOptions, or ask the site.",
)


def outcome(section: Section, errors: str) -> SubmitOutcome:
    """What one sbatch has led to.

    Args:
        section: what it printed, and how it ended.
        errors: its standard error.
    """
    job_id, code = parsing.parse_job_id(section.output), section.returncode
    words = _words(section.output, errors)
    if code == 0 and job_id is not None:
        return Submitted(job_id)
    if code == 0:
        return Unclear(f"sbatch succeeded and printed no job id: {words}", words=words)
    if code in (126, 127):
        advice = reasons.OUTAGE_ADVICE[Reason.COMMAND_NOT_FOUND]
        return Refused(reason="CommandNotFound", message=f"{words} {advice}".strip())
    made = _ID_PRINTED.search(section.output) is not None
    spoke = bool(words) and (code <= _MOST_CODE or _is_about_options(section.output, errors))
    if made or not spoke or not _is_answer(f"{section.output}\n{errors}"):
        return Unclear(f"sbatch ended with {code}: {words or 'no message'}", words=words)
    return refusal(words)


def refusal(words: str) -> Refused:
    """The refusal that words of sbatch, of slurmctld or of the site tell of."""
    known = next((known for known in _REFUSALS if known.text in words), _UNKNOWN)
    return Refused(reason=known.reason, message=f"{words} {known.advice}")


def _is_about_options(output: str, errors: str) -> bool:
    lines = [line.strip() for line in errors.splitlines()]
    return not output.strip() and all(map(_WRONG_OPTION.fullmatch, lines))


def _is_answer(text: str) -> bool:
    """Whether all that was said shows that there is no job."""
    if _AGAIN.search(text):
        return False  # whatever the last answer was
    asked = _ASKED.findall(text)
    judged = [said for said in asked if not _SAYS_NOTHING.fullmatch(said)] or [text]
    return not any(map(speaks_of_an_outage, judged))


def speaks_of_an_outage(words: str) -> bool:
    """Whether words tell that slurmctld was not reached, or did not answer."""
    return reasons.outage(words) is not None or any(
        pattern.search(words) is not None for pattern in (_NO_ANSWER, _AGAIN)
    )


def _words(output: str, errors: str) -> str:
    """What was said, for a message: a wrapper's last words, then those of sbatch and the site."""
    printed = one_line(output, limit=10 * _OF_OUTPUT)
    if len(printed) > _OF_OUTPUT:
        printed = f"…{printed[1 - _OF_OUTPUT :]}"
    return f"{printed} {one_line(errors, limit=_OF_ERRORS)}".strip()
