"""The batch script of one worker on one node.

Pure rendering: every value goes in as a quoted constant, the rest of the text is fixed
(`batch/`, in parts that say what they are for). No secret may stand in any value: scripts can be
read by others through `scontrol write batch_script` and the accounting database. An API key comes
by a file (`key_path`) that the job takes away when it starts.
"""

from __future__ import annotations

import re
import shlex

from isthmus.api.reserved_options import (
    READ_ONLY_ENVIRONMENT,
    SHELL_ENVIRONMENT,
    SHELL_ENVIRONMENT_PREFIX,
)
from isthmus.backends.slurm.batch import TEXT
from isthmus.backends.slurm.comments import identity_comment, parse_comment
from isthmus.backends.slurm.options import (
    TERM_LEAD_SECONDS,
    checked_directory,
    sbatch_options,
)
from isthmus.backends.slurm.records import (
    ATTEMPT_PLACEHOLDER,
    JOB_NAME,
    KEY_FILE_PLACEHOLDER,
    PORT_PLACEHOLDER,
    BastionCall,
    JobTemplate,
    SiteFacts,
)
from isthmus.backends.slurm.work_paths import key_path, tunnel_key_path

__all__ = ["identity_comment", "parse_comment", "render_script", "sbatch_options"]

MAX_SCRIPT_BYTES = 1024 * 1024
"""Far below SLURM's limit of 4 MiB."""

_ATTEMPT = re.compile(r"[a-z0-9]{6}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELL = {PORT_PLACEHOLDER: '"$isthmus_engine_port"', KEY_FILE_PLACEHOLDER: '"$isthmus_key_file"'}
_PUT_IN = re.compile(f"({'|'.join(map(re.escape, _SHELL))})")
_OWN = "isthmus_"
"""With which every variable of the script begins."""
_CONSTANTS_HERE = "# @CONSTANTS@\n"


def render_script(
    *,
    template: JobTemplate,
    site: SiteFacts,
    attempt: str,
    job_name: str,
    comment: str,
    term_lead_seconds: int = TERM_LEAD_SECONDS,
    call: BastionCall | None = None,
) -> str:
    """The batch script of one attempt.

    Args:
        template: what the revision froze.
        site: the cluster's facts.
        attempt: six characters of `[a-z0-9]`.
        job_name: the full name; names the claim and the run folder.
        comment: the identity comment, to which the job adds its port.
        term_lead_seconds: the job sends TERM to its engine that long before its granted end, at
            most half of what is left when it starts.
        call: the bastion that the job calls; its key comes by a file (`tunnel_key_path`).

    Raises:
        ValueError: a value that cannot stand in a script; the message says which.
    """
    if not _ATTEMPT.fullmatch(attempt):
        raise ValueError(f"{attempt!r} is not an attempt: six of a-z and 0-9")
    if not JOB_NAME.fullmatch(job_name):
        raise ValueError(f"{job_name!r} is not a job name")
    if not 0 < site.ports_from <= site.ports_to < 65536:
        raise ValueError(f"not a range of ports: {site.ports_from} to {site.ports_to}")
    if not template.argv:
        raise ValueError("the engine has no command")
    key = key_path(work_directory=site.work_directory, job_name=job_name) if template.key else ""
    constants = [
        f"isthmus_work_directory={_quoted(checked_directory(site.work_directory))}",
        f"isthmus_job_name={_quoted(job_name)}",
        f"isthmus_comment={_quoted(comment)}",
        f"isthmus_port_from={site.ports_from}",
        f"isthmus_port_to={site.ports_to}",
        f"isthmus_term_lead={int(term_lead_seconds)}",
        f"isthmus_shared_key={_quoted(key)}",
        f"isthmus_key_variable={_quoted(_variable(template.key_variable))}",
        f"isthmus_modules=({' '.join(_quoted(name) for name in _modules(site))})",
        f"isthmus_setup={_quoted(site.setup, lines=True)}",
        *_bastion(call, site=site, job_name=job_name),
        _function("set_environment", _exports(template, attempt)),
        _function("set_command", [f"isthmus_engine_command=({_elements(template.argv, attempt)})"]),
    ]
    script = TEXT.replace(_CONSTANTS_HERE, "\n".join(constants) + "\n")
    if len(script.encode()) > MAX_SCRIPT_BYTES:
        raise ValueError(f"the batch script is larger than {MAX_SCRIPT_BYTES} bytes")
    return script


def _bastion(call: BastionCall | None, *, site: SiteFacts, job_name: str) -> list[str]:
    if call is None:
        return ["isthmus_bastion_host=''"]
    place = tunnel_key_path(work_directory=site.work_directory, job_name=job_name)
    known = f"[{call.host}]:{call.port}" if call.port != 22 else call.host
    return [
        f"isthmus_bastion_host={_quoted(call.host)}",
        f"isthmus_bastion_port={int(call.port)}",
        f"isthmus_bastion_user={_quoted(call.user)}",
        f"isthmus_bastion_known={_quoted(f'{known} {call.host_key}')}",
        f"isthmus_forward_port={int(call.forward_port)}",
        f"isthmus_shared_tunnel_key={_quoted(place)}",
    ]


def _variable(name: str | None) -> str:
    if name is not None and not _VARIABLE.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of an environment variable")
    return name or ""


def _modules(site: SiteFacts) -> tuple[str, ...]:
    for name in site.modules:
        if not name or name.startswith("-"):
            raise ValueError(f"{name!r} is not the name of an environment module")
    return site.modules


def _exports(template: JobTemplate, attempt: str) -> list[str]:
    lines = []
    for name, value in template.env:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an environment variable")
        if name in READ_ONLY_ENVIRONMENT:
            continue  # of a revision from before the schema refused it; it never reached an engine
        if name.startswith((_OWN, SHELL_ENVIRONMENT_PREFIX)) or name in SHELL_ENVIRONMENT:
            raise ValueError(f"{name!r} is a variable of bash or of the batch script: remove it")
        lines.append(f"export {name}={_element(value, attempt)}")
    return lines


def _elements(argv: tuple[str, ...], attempt: str) -> str:
    return " ".join(_element(element, attempt) for element in argv)


def _element(text: str, attempt: str) -> str:
    """One shell word; the port and a file's path are the only things that the shell puts in."""
    parts = _PUT_IN.split(text.replace(ATTEMPT_PLACEHOLDER, attempt))
    return "".join(_SHELL.get(part) or _quoted(part) for part in parts)


def _function(name: str, lines: list[str]) -> str:
    return "\n".join([f"{name}() {{", *(f"  {line}" for line in lines or [":"]), "}"])


def _quoted(text: str, *, lines: bool = False) -> str:
    """One constant word of the shell.

    Raises:
        ValueError: control characters, which sbatch or the shell would not take as they are.
    """
    allowed = "\t\n" if lines else "\t"
    if any((c < " " or c == "\x7f") and c not in allowed for c in text):
        raise ValueError(f"control characters cannot stand in a batch script: {text[:60]!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"not valid text: {text[:60]!r}") from None
    return shlex.quote(text)
