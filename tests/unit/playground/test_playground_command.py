"""What the playground's command line makes of STATE, INSTANCE and SLURM_PREFIX."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from playground import __main__ as command
from playground.cluster import Config
from playground.config import DEFAULT_STATE
from playground.files import write_whole


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that playgrounds are made of; none is started."""
    found: list[Config] = []

    class Recorder:
        instance = 3

        def __init__(self, config: Config, **_: object) -> None:
            found.append(config)

        def up(self) -> None: ...

        def down(self) -> None: ...

    monkeypatch.setattr(command, "Playground", Recorder)
    monkeypatch.setattr(command.preflight, "check_root", lambda: None)
    for name in ("STATE", "INSTANCE", "SLURM_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    return found


def run(*argv: str, **environment: str) -> None:
    done = CliRunner().invoke(command.app, argv, env=environment, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_a_state_folder_alone_makes_a_second_playground(asked: list[Config]) -> None:
    """With number 0 asked for, it would meet the first one, which has it."""
    run("up", STATE="/var/tmp/other")
    assert asked[0].state == Path("/var/tmp/other")
    assert asked[0].instance is None, "the first free number is taken"


def test_nothing_named_takes_the_usual_folder(asked: list[Config]) -> None:
    run("up")
    assert (asked[0].state, asked[0].instance) == (DEFAULT_STATE, None)


def test_an_instance_alone_has_a_folder_of_its_own(asked: list[Config]) -> None:
    run("up", INSTANCE="5")
    assert (asked[0].state.name, asked[0].instance) == (f"{DEFAULT_STATE.name}-5", 5)


def test_down_without_a_name_also_clears_what_number_0_left(asked: list[Config]) -> None:
    run("down")
    assert asked[0].instance == 0
    run("down", STATE="/var/tmp/other")
    assert asked[1].instance is None


def test_slurm_prefix_is_a_folder_or_a_release(
    asked: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ensure(wanted: str, **_: object) -> object:
        return type("Release", (), {"prefix": Path(f"/made/{wanted}")})

    monkeypatch.setattr(command.slurm_releases, "ensure", ensure)
    run("up", SLURM_PREFIX="/opt/slurm")
    run("up", SLURM_PREFIX="24.11")
    assert [str(each.slurm_prefix) for each in asked] == ["/opt/slurm", "/made/24.11"]


def test_a_record_of_a_killed_playground_is_whole_or_not_there(tmp_path, monkeypatch):
    """One was read empty between its creation and its writing, in a run of all tests."""
    record = tmp_path / "instance"

    def killed(self: Path, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(record, "3\n")
    assert not record.exists()
    monkeypatch.undo()
    write_whole(record, "3\n")
    assert record.read_text(encoding="utf-8") == "3\n"
