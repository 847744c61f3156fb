"""What an answer of sbatch means. Texts are those that real ones printed (22.05, 24.11, 26.05), and
those of sites' plug-ins and wrappers.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.backends.slurm.parsing import Section
from isthmus.backends.slurm.records import Refused, SubmitOutcome, Submitted, Unclear
from isthmus.backends.slurm.sbatch_answers import outcome, speaks_of_an_outage

FAILED = "sbatch: error: Batch job submission failed: "
POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


def answer(errors: str, *, output: str = "", code: int = 1) -> SubmitOutcome:
    return outcome(Section(output=output, returncode=code, clock=0), errors)


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        (f"{FAILED}Invalid partition name specified", "InvalidPartition"),
        (f"{FAILED}Invalid account or account/partition combination specified", "InvalidAccount"),
        (f"{FAILED}Invalid qos specification", "InvalidQos"),
        (f"{FAILED}Requested node configuration is not available", "NodeConfigurationNotAvailable"),
        (
            f"{FAILED}Requested time limit is invalid (missing or exceeds some limit)",
            "InvalidTimeLimit",
        ),
        (f"{FAILED}Access/permission denied", "PermissionDenied"),
        (
            f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{FAILED}{POLICY}",
            "QOSMaxSubmitJobPerUserLimit",
        ),
        (f"sbatch: error: AssocMaxSubmitJobLimit\n{FAILED}{POLICY}", "AssocMaxSubmitJobLimit"),
        (f"{FAILED}Invalid license specification", "InvalidLicense"),
        (f"{FAILED}Invalid wckey specification", "InvalidWckey"),
        (f"{FAILED}No partition specified or system default partition", "InvalidPartition"),
        (f"{FAILED}More processors requested than permitted", "InvalidCpuCount"),
        (f"{FAILED}I/O error writing script/environment to file", "RefusedBySlurm"),
        (f"{FAILED}Invalid Trackable RESource (TRES) specification", "RefusedBySlurm"),
        (f"{FAILED}Required node not available (down, drained or reserved)", "RefusedBySlurm"),
        (f"{FAILED}Invalid preferred feature specification", "RefusedBySlurm"),
        (f"{FAILED}Requested nodes are busy", "RefusedBySlurm"),
        (f"{FAILED}Unable to create job record, try again", "NoRoom"),
        (f"{FAILED}The cat sat on the mat", "RefusedBySlurm"),
        ("sbatch: error: cli_filter plugin terminated with error", "RefusedBySite"),
        ("sbatch: error: invalid number of nodes (-N 2-1)", "InvalidNodeCount"),
        ('sbatch: error: unrecognized --hint argument "garbage", see --hint=help', "InvalidOption"),
        ('sbatch: error: Invalid numeric value "abc" for --switches.', "InvalidOption"),
        ("sbatch: error: Invalid hostfile /etc/shadow contents on line 17", "InvalidOption"),
    ],
)
def test_f4_h3_refusals(errors: str, reason: str) -> None:
    refused = answer(errors)
    assert isinstance(refused, Refused), refused
    assert refused.reason == reason
    assert errors.rsplit("\n", maxsplit=1)[-1][:60] in refused.message


@pytest.mark.parametrize(
    "errors",
    [
        'sbatch: error: unrecognized --mem-bind argument "garbage"',
        "sbatch: error: Invalid --gres-flags specification: garbage",
        'sbatch: error: unrecognized --cpu-freq argument "x"\n'
        "sbatch: error: Invalid --cpu-freq argument",
        "sbatch: error: Invalid --tmp specification",
        "/usr/bin/sbatch: unrecognized option '--segment=abc'\n"
        'Try "sbatch --help" for more information',
        "sbatch: option '--oversubscribe' doesn't allow an argument\n"
        'Try "sbatch --help" for more information',
    ],
)
def test_h3_an_option_that_sbatch_does_not_take_though_its_code_is_the_one_of_ssh(
    errors: str,
) -> None:
    refused = answer(errors, code=255)
    assert isinstance(refused, Refused), refused
    assert refused.reason == "InvalidOption"
    with_more = answer(f"{errors}\nConnection to slurm1 closed by remote host.", code=255)
    assert isinstance(with_more, Unclear)


def test_f4_a_sites_own_words_are_shown() -> None:
    """What job_submit.lua logs stands before SLURM's own line."""
    words = "You must choose a GPU model: contact hpc-support if --network or sockets puzzle you"
    refused = answer(f"sbatch: error: {words}\n{FAILED}Unspecified error")
    assert isinstance(refused, Refused)
    assert refused.reason == "RefusedBySite"
    assert words in refused.message


def test_f4_a_wrappers_words_on_standard_output_are_shown() -> None:
    banner = "-" * 500 + "\n--> Verifying access to desired queue (gpu)...OK\n"
    refused = answer("", output=f"{banner}--> Checking available allocation (A-123)...FAILED\n")
    assert isinstance(refused, Refused)
    assert "Checking available allocation (A-123)...FAILED" in refused.message
    both = answer(f"{FAILED}Invalid qos specification", output="--> checking allocation ... FAILED")
    assert isinstance(both, Refused)
    assert "checking allocation ... FAILED" in both.message


@pytest.mark.parametrize(
    "text",
    [
        "Socket timed out on send/recv operation",
        "Zero Bytes were transmitted or received",
        "Unable to contact slurm controller (connect failure)",
        "Unable to contact slurm controller (receive failure)",
        "Communication connection failure",
        "Message receive failure",
        "Unexpected message received",
        "Unexpected missing socket error",
        "Insane message length",
        "Header lengths are longer than data received",
        "Connection timed out reading",
        "Protocol authentication error",
        "Invalid authentication credential",
        "Failed to connect to authentication agent",
        "Incompatible versions of client and server code",
        "Slurm backup controller in standby mode",
        "Controller is in standby mode, try a different controller",
        "Rate limit exceeded, please retry later",
        "Can't find an address, check slurm.conf",
        "Connection refused",
        "Connection reset by peer",
        "Broken pipe",
        "No route to host",
        "Network is unreachable",
        "Resource temporarily unavailable",
        "Interrupted system call",
        "Temporary failure in name resolution",
    ],
)
def test_outages_are_unclear(text: str) -> None:
    for errors in (f"{FAILED}{text}", f"{FAILED}Invalid qos specification\n{FAILED}{text}"):
        unclear = answer(errors)
        assert isinstance(unclear, Unclear), errors
        assert text in unclear.words
        assert speaks_of_an_outage(unclear.words)
    assert isinstance(answer(f"sbatch: error: slurm_x: {text}\n{FAILED}Unspecified error"), Unclear)
    assert isinstance(answer(f"error: {text}"), Unclear), "of a wrapper, before SLURM was asked"


def test_one_that_tried_again_is_unclear_whatever_came_then() -> None:
    """It may have been accepted the first time: then the second one is over a limit."""
    busy = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying."
    assert isinstance(answer(f"{busy}\n{FAILED}{POLICY}"), Unclear)
    limited = "sbatch: RPC rate limited 1 time(s). Sleeping then trying again."
    assert isinstance(answer(f"{limited}\n{FAILED}Invalid qos specification"), Unclear)


@pytest.mark.parametrize(
    ("output", "errors", "code"),
    [
        ("", "", 1),
        ("", "", 0),
        ("hello", "", 0),
        ("42\n43\n", "", 0),
        ("42\n", f"{FAILED}Invalid partition name specified", 1),
        ("42\n43\n", f"{FAILED}Invalid partition name specified", 1),
        ("Submitted batch job 42\n", "wrapper: cannot tell the portal", 1),
        ("", f"{FAILED}Invalid partition name specified", 124),
        ("", "Killed", 137),
        ("", "Terminated", 143),
        ("", "timeout: fork failed", 125),
        ("", "Connection to slurm1 closed by remote host.", 255),
        ("", "the gateway ended", 255),
        ("checking allocation ... OK", "sbatch: error: Invalid --tmp specification", 255),
    ],
)
def test_what_is_not_known_is_unclear(output: str, errors: str, code: int) -> None:
    assert isinstance(answer(errors, output=output, code=code), Unclear)


def test_nobodys_words_are_an_outage_unless_they_say_so() -> None:
    assert not speaks_of_an_outage("")
    assert not speaks_of_an_outage("You must choose a GPU model")


@given(output=st.text(), errors=st.text(), code=st.integers(0, 255))
def test_any_answer_is_judged_and_told_in_bounded_lines(
    output: str, errors: str, code: int
) -> None:
    found = answer(errors, output=output, code=code)
    if isinstance(found, Submitted):
        return
    told = found.words if isinstance(found, Unclear) else found.message
    assert told.isprintable()
    assert len(told) <= 900
