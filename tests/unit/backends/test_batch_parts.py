"""The batch script is put together of all its parts, each of which stands by itself."""

import subprocess
from importlib.resources import files

import pytest

from isthmus.backends.slurm import batch

FILES = {one.name for one in files(batch).iterdir() if one.name.endswith(".sh")}


def test_every_part_is_in_the_script() -> None:
    assert sorted(FILES) == sorted(f"{part}.sh" for part in batch.PARTS)
    assert batch.TEXT.startswith("#!/bin/bash\n")
    assert batch.TEXT.endswith("\nmain\n"), "what is cut off runs nothing"
    assert "\n\n\n" not in batch.TEXT


@pytest.mark.parametrize("part", batch.PARTS)
def test_a_part_is_whole(part: str) -> None:
    text = files(batch).joinpath(f"{part}.sh").read_text(encoding="utf-8")
    assert text == text.strip("\n") + "\n"
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=300)
