"""What commands that take files say of ones that cannot be read, each alike."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from isthmus.cli.main import app

COMMANDS = ("render", "validate")


@pytest.mark.parametrize("command", COMMANDS)
class TestUnreadable:
    def said(self, command: str, path: Path) -> str:
        found = CliRunner(env={"COLUMNS": "300"}).invoke(app, [command, str(path)])
        assert found.exit_code == 2
        assert "Errno" not in found.output
        return found.output

    def test_a_missing_file(self, command: str, tmp_path: Path) -> None:
        assert f"there is no file {tmp_path}/a.yaml" in self.said(command, tmp_path / "a.yaml")

    def test_no_text(self, command: str, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_bytes(b"\xff\xfe")
        assert f"{path} cannot be read: it is no text in UTF-8" in self.said(command, path)

    def test_a_folder_without_manifests(self, command: str, tmp_path: Path) -> None:
        assert f"{tmp_path} holds no .yaml, .yml, .json files" in self.said(command, tmp_path)

    def test_a_file_below_a_file(self, command: str, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_text("")
        assert "cannot be read: not a directory" in self.said(command, path / "b.yaml")


def test_render_takes_a_folder_and_standard_input_as_validate_does(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "deploy" / "samples" / "smallest.yaml").read_text()
    (tmp_path / "a.yaml").write_text(text)
    folder = CliRunner().invoke(app, ["render", str(tmp_path)])
    standard = CliRunner().invoke(app, ["render", "-"], input=text)
    assert folder.exit_code == standard.exit_code == 0, folder.output
    assert folder.output == standard.output
    assert "kind: Deployment" in folder.output
