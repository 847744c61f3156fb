"""Writes the engine simulators as a tree that needs nothing but Python: for images and clusters.

    DEST/bin/vllm  DEST/bin/sglang      commands; they find DEST/lib from where they are
    DEST/lib/engine_simulator/          the modules and their data
    DEST/lib/sglang/launch_server.py    for PYTHONPATH=DEST/lib python3 -m sglang.launch_server

Run it as `python -m playground.engines.install DEST`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_INSTALLED = ("install.py", "launch.py")

COMMAND = '''\
#!/usr/bin/python3
"""Simulated {name}: takes the real command line, needs no GPU."""
import os
import sys

here = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(here, "lib"))

from engine_simulator.{name}_command import main

sys.exit(main())
'''

LAUNCH_SERVER = '''\
"""The old entry of SGLang, simulated."""
import sys

from engine_simulator.sglang_command import launch_server

if __name__ == "__main__":
    sys.exit(launch_server())
'''


def install(destination: Path) -> None:
    """Write the tree, world-readable, over what an earlier install left there."""
    package = destination / "lib" / "engine_simulator"
    if package.exists():
        shutil.rmtree(package)
    for source in sorted((*HERE.glob("*.py"), *HERE.glob("data/*.tsv"))):
        if source.name not in NOT_INSTALLED:
            _write(package / source.relative_to(HERE), source.read_text(encoding="utf-8"))
    for name in ("vllm", "sglang"):
        _write(destination / "bin" / name, COMMAND.format(name=name), mode=0o755)
    launcher = destination / "lib" / "sglang" / "launch_server.py"
    _write(launcher.with_name("__init__.py"), '"""Entry points only; see launch_server."""\n')
    _write(launcher, LAUNCH_SERVER)


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for parent in missing:
        parent.chmod(0o755)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def main() -> int:
    """Install into the folder named on the command line."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("usage: python -m playground.engines.install DEST", file=sys.stderr)
        return 2
    install(Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
