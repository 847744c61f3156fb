"""What a batch script says, as a node would read it."""

import re
import shlex


class BatchScript:
    """What a batch script says, read as the shell would."""

    def __init__(self, text: str) -> None:
        self._text = text
        found = re.search(r"^\s*isthmus_engine_command=\((.*)\)$", text, re.MULTILINE)
        assert found is not None, "no engine_command in the script"
        self.command = tuple(shlex.split(found[1]))

    def constant(self, name: str) -> str:
        found = re.search(rf"^isthmus_{name}=(.*)$", self._text, re.MULTILINE)
        assert found is not None, f"no {name} in the script"
        return shlex.split(found[1])[0]

    def option(self, name: str) -> str:
        return next(a.partition("=")[2] for a in self.command if a.startswith(f"{name}="))

    @property
    def comment(self) -> str:
        return self.constant("comment")

    @property
    def ports(self) -> tuple[int, int]:
        return int(self.constant("port_from")), int(self.constant("port_to"))
