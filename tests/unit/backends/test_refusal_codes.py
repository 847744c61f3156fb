"""What scancel and scontrol say where slurmctld refused has one meaning."""

import pytest

from isthmus.backends.slurm.commands import refusal_code
from isthmus.errors import RefusalCode

KILL = "scancel: error: Kill job error on job id 7: "


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"{KILL}Invalid job id specified", RefusalCode.NO_SUCH_JOB),
        ("slurm_load_jobs error: Invalid job id specified", RefusalCode.NO_SUCH_JOB),
        (f"{KILL}Job/step already completing or completed", RefusalCode.JOB_IS_OVER),
        (f"{KILL}No active jobs match ALL job filters", RefusalCode.NO_MATCHING_JOB),
        (f"{KILL}Access/permission denied", RefusalCode.PERMISSION_DENIED),
        (f"{KILL}Unable to contact slurm controller", None),
        ("Socket timed out on send/recv operation", None),
        ("", None),
    ],
)
def test_of_what_slurm_says(text: str, code: RefusalCode | None) -> None:
    assert refusal_code(text) is code
