"""The playground as a whole: starts its parts side by side, tells how to use them, takes all away.

This is the module that the tests import; `python -m playground` is the same for people.
"""

import contextlib
import dataclasses
import os
import pwd
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from playground import cleanup, instances, network, owners, packages, preflight
from playground.commands import SYSTEM_PATH, run
from playground.components import Components
from playground.config import Config, Names, Part, default_cache, parse_parts
from playground.errors import PlaygroundError
from playground.files import locked, make_folder, state_lock, write_whole
from playground.kubernetes import Kubernetes
from playground.progress import Progress
from playground.slurm import Slurm

__all__ = ["Config", "Part", "Playground", "PlaygroundError", "default_cache", "parse_parts"]


class Playground:
    """One playground: `up()`, use, `down()`; also a context manager.

    Attributes:
        config: what was asked for.
        components: its daemons, by name.
    """

    def __init__(self, config: Config, *, progress: Progress | None = None) -> None:
        self.config = config
        self.progress = progress or Progress()
        self.components = Components(config.state)
        self._kubernetes: Kubernetes | None = None
        self._slurm: Slurm | None = None
        self._owned = False

    @classmethod
    def load(cls, state: Path, *, progress: Progress | None = None) -> "Playground":
        """The playground that was started in a folder; raises PlaygroundError if none was."""
        record = state / "playground.json"
        if not record.exists():
            raise PlaygroundError(f"no playground in {state}; start one with `make playground`")
        return cls(Config.from_json(record.read_text(encoding="utf-8")), progress=progress)

    # -- what there is

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.config.state

    @property
    def instance(self) -> int:
        """The instance number; raises PlaygroundError before `up`."""
        owned = instances.owned_by(self.state)
        if owned:
            return owned[0]
        if self.config.instance is not None:
            return self.config.instance
        raise PlaygroundError("the playground has no instance number before it is started")

    @property
    def names(self) -> Names:
        """Every name, port and address of this instance."""
        return Names(self.instance)

    @property
    def kubernetes(self) -> Kubernetes:
        """The Kubernetes cluster (or its API server only), with its fault helpers."""
        if self._kubernetes is None:
            self._kubernetes = Kubernetes(
                config=self.config,
                names=self.names,
                components=self.components,
                progress=self.progress,
            )
        return self._kubernetes

    @property
    def slurm(self) -> Slurm:
        """The SLURM cluster, with its fault helpers."""
        if self._slurm is None:
            self._slurm = Slurm(
                config=self.config,
                names=self.names,
                components=self.components,
                progress=self.progress,
            )
        return self._slurm

    @property
    def engines(self) -> Path:
        """Folder with the engine simulators for jobs; its `bin` belongs into the jobs' PATH."""
        return self.state / "engines"

    @property
    def bin_folder(self) -> Path:
        """`kubectl` and `isthmus` as this playground has them."""
        return self.state / "bin"

    def environment(self) -> dict[str, str]:
        """KUBECONFIG, SLURM_CONF (of the parts there are) and PATH."""
        parts, path = self.config.parts, [str(self.bin_folder)]
        values = {}
        if parts & {"kubernetes", "apiserver"}:
            values["KUBECONFIG"] = str(self.kubernetes.kubeconfig)
        if "slurm" in parts:
            values["SLURM_CONF"] = str(self.slurm.configuration)
            if self.config.slurm_prefix:
                path.append(str(self.slurm.bin_folder))
        return values | {"PATH": ":".join([*path, os.environ.get("PATH", SYSTEM_PATH)])}

    def kubectl(self, *argv: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Run kubectl as administrator and return its output; raises PlaygroundError."""
        return self.kubernetes.kubectl(*argv, stdin=stdin, timeout=timeout)

    # -- up and down

    def up(self) -> None:
        """Start what does not run, and wait until all of it answers.

        A failed start leaves what it made for a look at the output; `down` takes it away.

        Raises:
            PlaygroundError: with what is missing and what to do about it.
        """
        preflight.check(self.config)
        packages.install(self.config, self.progress)
        with state_lock(self.state):
            self._claim()
            running = self.running()
            self._merge_with_running(running)
            self._prepare()
            if running:
                self.progress.say(f"{len(running)} daemons run already; starting what is missing")
            network.isolate(self.names)
            self._start_parts()
            self._write_environment()

    def down(self) -> None:
        """End every process and remove every trace but packages and accounts; idempotent."""
        cleanup.down(self.config, self.progress)
        self._kubernetes = self._slurm = None

    def running(self) -> tuple[str, ...]:
        """Names of the daemons that run."""
        return tuple(n for n in self.components.names() if self.components.process(n))

    def stopped(self) -> tuple[str, ...]:
        """Names of the daemons that were started and do not run."""
        return tuple(n for n in self.components.names() if not self.components.process(n))

    def save_logs(self, folder: Path) -> None:
        """Copy every daemon's output, for instance when a test has failed."""
        folder.mkdir(parents=True, exist_ok=True)
        for source in (self.components.log_folder, self.state / "slurm" / "log"):
            if source.exists():
                shutil.copytree(source, folder, dirs_exist_ok=True)

    def __enter__(self) -> "Playground":
        self._owned = True
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    # -- steps of `up`

    def _claim(self) -> None:
        """Take an instance number; a refused start leaves nothing behind."""
        try:
            instances.claim(self.state, instance=self.config.instance)
        except PlaygroundError:
            with contextlib.suppress(OSError):  # unless it holds something
                self.state.rmdir()
            raise

    def _merge_with_running(self, running: tuple[str, ...]) -> None:
        """Parts are added to those that run; anything else that differs is refused."""
        record = self.state / "playground.json"
        if not running or not record.exists():
            return
        former = Config.from_json(record.read_text(encoding="utf-8"))
        parts = self.config.parts | former.parts
        ignored = {"parts", "instance", "cache"}
        fields = [f.name for f in dataclasses.fields(Config) if f.name not in ignored]
        changed = [n for n in fields if getattr(former, n) != getattr(self.config, n)]
        if changed:
            told = ", ".join(f"{n} is {getattr(former, n)!r}" for n in changed)
            raise PlaygroundError(
                f"the playground in {self.state} runs with other settings ({told}); "
                "stop it first (`make down`)"
            )
        self.config = dataclasses.replace(self.config, parts=parts)
        self._kubernetes = self._slurm = None

    def _prepare(self) -> None:
        make_folder(self.state)
        write_whole(self.state / "instance", f"{self.instance}\n")
        write_whole(self.state / "playground.json", self.config.to_json())
        owners.record(self.state, owned=self._owned)
        ensure_accounts(self.config)
        for folder in ("run", "log", "bin"):
            make_folder(self.state / folder)
        make_folder(self.state / "jobs", owner=self.config.user)

    def _start_parts(self) -> None:
        work: list[Callable[[], None]] = []
        if self.config.parts & {"kubernetes", "apiserver"}:
            work.append(self.kubernetes.start)
        if "slurm" in self.config.parts:
            work.append(self.slurm.start)
        if self.config.parts & {"kubernetes", "slurm"}:
            work.append(self._install_engines)
        with ThreadPoolExecutor(max_workers=len(work)) as pool:
            results = [pool.submit(task) for task in work]
        for result in results:
            result.result()

    def _install_engines(self) -> None:
        from playground.engines.install import install

        install(self.engines)

    def _write_environment(self) -> None:
        lines = [f"export {k}={v}" for k, v in self.environment().items() if k != "PATH"]
        own = [str(self.bin_folder)]
        if "slurm" in self.config.parts and self.config.slurm_prefix:
            own.append(str(self.slurm.bin_folder))
        lines.append(f'export PATH={":".join(own)}:"$PATH"')
        (self.state / "env.sh").write_text("\n".join(lines) + "\n", encoding="utf-8")


def ensure_accounts(config: Config) -> None:
    """Make the job user, and for a SLURM from elsewhere its own users; they stay."""
    wanted = {config.user: ["--create-home", "--shell", "/bin/bash"]}
    if "slurm" in config.parts:
        system = ["--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        wanted |= {"slurm": system, "munge": system}
    with locked(config.cache / "accounts.lock"):  # two first starts at once
        for name, options in wanted.items():
            try:
                pwd.getpwnam(name)
            except KeyError:
                run(["useradd", *options, name])
