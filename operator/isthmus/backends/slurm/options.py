"""The options of `sbatch`: from a template and a site's facts, and those that users may add.

Apart from the script, because the same options also go to `sbatch --test-only`, and because what a
user may say here is a question of safety with a page of its own.
"""

from __future__ import annotations

import re

from isthmus.api.reserved_options import SBATCH_ALLOWED, SBATCH_VALUES
from isthmus.api.texts import listed, one_line
from isthmus.backends.slurm.records import JobTemplate, SiteFacts

TERM_LEAD_SECONDS = 330
"""Default time between TERM to the engine and the end of the job: a drain of 5 min and 30 s."""

_OPTION = re.compile(r"--([a-z][a-z-]*)(?:=(.*))?", re.DOTALL)
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:@+-]*")
_PATH = re.compile(r"/[A-Za-z0-9_./+@-]+")


def check_option(option: str) -> str | None:
    """What is wrong with a user's sbatch option, as a sentence, or None if it may be used."""
    match = _OPTION.fullmatch(option)
    if match is None:
        return f"{option!r} is not an option: write --name=value, one option per element."
    name, value = match[1], match[2]
    if f"--{name}" not in SBATCH_ALLOWED:
        return (
            f"--{name} cannot be set here: use the field of the pool or of the SlurmCluster that "
            "has this meaning, or ask the administrator to set it for the site."
        )
    wanted = SBATCH_VALUES.get(f"--{name}")
    if wanted is not None and not re.fullmatch(wanted, option.removeprefix(f"--{name}")):
        return f"--{name}: sbatch does not take this value: see the manual page of sbatch."
    if value is None:
        return None
    if not value.isprintable() or len(value) > 256:
        return f"--{name}: the value must be one printable line of at most 256 characters."
    if value == "" or value.startswith("-"):
        return f"--{name}: the value must not be empty nor begin with '-'."
    return None


def sbatch_options(
    *,
    template: JobTemplate,
    site: SiteFacts,
    job_name: str,
    excluded_nodes: tuple[str, ...] = (),
    term_lead_seconds: int = TERM_LEAD_SECONDS,
) -> tuple[str, ...]:
    """The options of one submission on one node, but for name, comment and `--no-requeue`.

    Args:
        template: what the revision froze.
        site: the cluster's facts.
        job_name: names the output file.
        excluded_nodes: present nodes of the partition that shall not be used; an unknown name
            makes sbatch refuse.
        term_lead_seconds: as in `render_script`; SLURM's own warning comes after that, for a job
            whose end moved while nobody looked.

    Raises:
        ValueError: a value that cannot be an option; the message says which.
    """
    directory = checked_directory(site.work_directory)
    minutes = template.time_limit_minutes or site.default_time_limit_minutes
    options = [
        "--nodes=1",
        "--ntasks=1",
        f"--time={minutes}",
        f"--chdir={directory}",
        f"--output={directory}/{_word('job name', job_name)}.%j.log",
        "--open-mode=append",
        "--export=ALL",
        *_signal(template, minutes * 60, term_lead_seconds),
    ]
    partitions = ",".join(template.partitions) or site.default_partition
    if partitions:
        options.append(f"--partition={_word('partition', partitions)}")
    if account := template.account or site.default_account:
        options.append(f"--account={_word('account', account)}")
    if qos := template.qos or site.default_qos:
        options.append(f"--qos={_word('qos', qos)}")
    options += _resources(template, site)
    ours = [_word("node", name) for name in sorted(excluded_nodes)]
    for option in template.sbatch_options:
        wrong = check_option(option)
        if wrong is not None:
            raise ValueError(wrong)
        if ours and option.startswith("--exclude="):
            ours.append(option.partition("=")[2])  # of two SLURM would take the last
        else:
            options.append(option)
    if ours:
        options.append(f"--exclude={','.join(ours)}")
    return tuple(options)


def _signal(template: JobTemplate, limit: int, term_lead: int) -> list[str]:
    """SLURM's own warning, after the script's timer: it comes up to 60 s early."""
    shorter = any(option.startswith("--time-min") for option in template.sbatch_options)
    before_end = min(term_lead, limit // 2) - 60
    return [] if shorter or before_end < 30 else [f"--signal=B:USR1@{before_end}"]


def _resources(template: JobTemplate, site: SiteFacts) -> list[str]:
    options = []
    if template.gpus > 0 and site.gpu_directive != "none":
        kind = f"{_gpu_type(template.gpu_type, site)}:" if template.gpu_type else ""
        if site.gpu_directive == "gres":
            options.append(f"--gres=gpu:{kind}{template.gpus}")
        elif site.gpu_directive == "gpus-per-node":
            options.append(f"--gpus-per-node={kind}{template.gpus}")
        else:
            raise ValueError(f"gpuDirective {site.gpu_directive!r}: use gres, gpus-per-node, none")
    if template.cpus is not None:
        options.append(f"--cpus-per-task={template.cpus}")
    if template.memory_mib is not None and site.memory_directive == "mem":
        options.append(f"--mem={template.memory_mib}M")
    elif template.memory_mib is not None and site.memory_directive == "mem-per-gpu":
        options.append(f"--mem-per-gpu={-(-template.memory_mib // max(1, template.gpus))}M")
    if site.exclusive:
        options.append("--exclusive")
    return options


def _gpu_type(neutral: str, site: SiteFacts) -> str:
    if site.gpu_types and neutral not in site.gpu_types:
        known = listed(site.gpu_types)
        kind = one_line(neutral, limit=64)
        raise ValueError(f"GPU type {kind!r} is not in site.gpuTypes, which has: {known}")
    return _word("gpu type", site.gpu_types.get(neutral, neutral))


def _word(what: str, value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError(f"{value!r} is not a {what}: use letters, digits and _ . , : @ + -")
    return value


def checked_directory(path: str) -> str:
    """An absolute path without characters that SLURM or a shell would expand.

    Raises:
        ValueError: it is not one.
    """
    if not _PATH.fullmatch(path) or "/../" in f"{path}/":
        raise ValueError(f"{path!r} is not an absolute path of letters, digits and _ . / + @ -")
    return path.rstrip("/")
