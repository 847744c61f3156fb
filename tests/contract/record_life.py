"""Records the lives of jobs on a real SLURM, for the contract test of the simulated one.

As root; it starts a SLURM in the folder STATE, and takes it away again. SLURM_PREFIX names the
folder of another release's programs, as for `make demo`::

    python -m tests.contract.record_life STATE 22.05
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from isthmus.backends.slurm.client import SlurmClient
from isthmus.backends.slurm.commands import CommandClient
from isthmus.backends.slurm.executor import LocalExecutor
from isthmus.backends.slurm.work_folder import ShellWorkFolder, WorkFolder
from playground.cluster import Config, Playground
from tests.contract.slurm_life import LIVES, SAMPLES, live

ENGINE = """\
import signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3))
port = next(int(word.partition("=")[2]) for word in sys.argv if word.startswith("--port="))
listener = socket.create_server(("", port))  # it is published once it listens
while True:
    time.sleep(0.2)
"""


@dataclass
class RealSite:
    """A playground's SLURM."""

    client: SlurmClient
    files: WorkFolder
    folder: str
    configuration: Path
    bin_folder: Path

    async def pause(self) -> None:
        await asyncio.sleep(0.1)

    async def hold(self, job_id: int) -> None:
        await self._scontrol("hold", str(job_id))

    async def release(self, job_id: int) -> None:
        await self._scontrol("release", str(job_id))

    async def requeue(self, job_id: int) -> None:
        await self._scontrol("update", f"jobid={job_id}", "Requeue=1")
        await self._scontrol("requeue", str(job_id))

    async def end_in_a_second(self, job_id: int) -> None:
        await self._scontrol("update", f"jobid={job_id}", "EndTime=now+1")

    async def crash(self, job_id: int) -> None:
        await asyncio.sleep(2)  # the interpreter has to have its handlers
        await asyncio.to_thread(self._signal_engine, job_id)

    def _signal_engine(self, job_id: int) -> None:
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                mine = f"SLURM_JOB_ID={job_id}\0".encode() in (folder / "environ").read_bytes()
            except OSError:
                continue
            if mine and f"{self.folder}/engine.py".encode() in words and b"python3" in words[0]:
                os.kill(int(folder.name), signal.SIGUSR1)

    async def drain(self, *, drained: bool) -> None:
        state = ("state=drain", "reason=test") if drained else ("state=resume",)
        await self._scontrol("update", "nodename=ALL", *state)

    async def clear(self) -> None:
        """The cluster was configured with a short MinJobAge."""

    async def _scontrol(self, *argv: str) -> None:
        environment = {
            "SLURM_CONF": str(self.configuration),
            "PATH": f"{self.bin_folder}:/usr/bin:/bin",
        }
        scontrol = str(self.bin_folder / "scontrol")
        process = await asyncio.create_subprocess_exec(scontrol, *argv, env=environment)
        assert await process.wait() == 0


async def record(site: RealSite, folder: Path) -> None:
    seen = {}
    for number, (name, do) in enumerate(LIVES.items()):
        seen[name] = await live(do, site, attempt=f"life{number:02}")
        print(name, *seen[name], sep="\n    ", flush=True)
    text = json.dumps(seen, indent=1, sort_keys=False)
    folder.joinpath("life.json").write_text(text + "\n")


def main() -> None:
    state, version = Path(sys.argv[1]).resolve(), sys.argv[2]
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o755)
    prefix = os.environ.get("SLURM_PREFIX")
    config = Config(
        state=state,
        instance=None,
        parts=frozenset({"slurm"}),
        slurm_prefix=Path(prefix) if prefix else None,
        min_job_age=30,
        kill_wait=5,
    )
    with Playground(config) as playground:
        folder = state / "life"
        folder.mkdir(exist_ok=True)
        (folder / "engine.py").write_text(ENGINE)
        shutil.chown(folder, config.user)
        executor = LocalExecutor(
            bin_directory=str(playground.slurm.bin_folder),
            user=config.user,
            source={"SLURM_CONF": str(playground.slurm.configuration)},
        )
        client = CommandClient(executor, bin_directory=str(playground.slurm.bin_folder))
        slurm = playground.slurm
        site = RealSite(
            client, ShellWorkFolder(executor), str(folder), slurm.configuration, slurm.bin_folder
        )
        asyncio.run(record(site, SAMPLES / version))


if __name__ == "__main__":
    main()
