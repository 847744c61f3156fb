"""Process 1 of an engine's container, as a real process with real engines below it.

Its signals, exit codes and arguments; and as the first process of a PID namespace over the
simulated engines, which is what it is in a pod.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from isthmus.backends.kubernetes import firstprocess
from isthmus.backends.kubernetes.firstprocess import under_first_process
from playground.engines.install import install
from playground.engines.launch import free_port

PR_SET_CHILD_SUBREAPER = 36

# Serves on argv[1] what the file `says` in its folder holds ("" nothing listens, "silent" listens
# and does not answer, else a status), writes what happens into `log`, and ends with the code in
# the file `end`. A TERM does nothing to it.
ENGINE = """\
import os, signal, socket, sys, time
port, folder = int(sys.argv[1]), sys.argv[2]

def note(text):
    with open(folder + "/log", "a") as log:
        log.write(text + "\\n")

def read(name):
    try:
        with open(folder + "/" + name) as file:
            return file.read()
    except FileNotFoundError:
        return ""

for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGINT"):
    signal.signal(getattr(signal, name), lambda number, _: note(signal.Signals(number).name))
parent = os.getpid()
if os.fork() == 0:
    signal.signal(signal.SIGTERM, lambda *_: note("child SIGTERM"))
    note("child up")
    while os.getppid() == parent:
        time.sleep(0.02)
    os._exit(0)
note("up")
listener, told = None, ""
while not read("end"):
    says = read("says")
    if says and listener is None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        listener.settimeout(0.02)
    if not says and listener is not None:
        listener.close()
        listener = None
    if says != told:
        note("says " + says)
        told = says
    if listener is None or says == "silent":
        time.sleep(0.02)
        continue
    try:
        connection = listener.accept()[0]
    except TimeoutError:
        continue
    with connection:
        connection.settimeout(5)
        line = connection.recv(4096).partition(b"\\r\\n")[0].decode()
        connection.sendall(f"HTTP/1.1 {says} X\\r\\n\\r\\n".encode())
    note(f"{line} -> {says}")
sys.exit(int(read("end")))
"""


@dataclass
class Container:
    """A process 1 with an engine of the kind above."""

    folder: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def says(self, answer: str) -> None:
        """What the engine does from now on; it has noticed when this returns."""
        _replace(self.folder / "says", answer)
        until(lambda: self.log()[-1:] != [] and f"says {answer}" in self.log())

    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def end(self, code: int) -> None:
        _replace(self.folder / "end", str(code))

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def heard(self, name: str) -> None:
        until(lambda: name in self.log())


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Container]:
    monkeypatch.setattr(firstprocess, "PATIENCE_SECONDS", 0.3)
    made = Container(tmp_path)
    port = free_port()
    with running([sys.executable, "-c", ENGINE, str(port), str(tmp_path)], port=port) as process:
        made.process = process
        try:
            made.heard("up")
            made.heard("child up")
            yield made
        finally:
            # An engine whose process 1 is gone ends too, here without a kernel that sees to it.
            made.end(0)


@contextmanager
def running(
    engine: Sequence[str],
    *,
    port: int = 1,
    path: str = "/health",
    environment: dict[str, str] | None = None,
    reaper: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Process 1 over an engine; what is left of both is gone at the end."""
    made = under_first_process(engine, port=port, path=path)

    def reap() -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    process = subprocess.Popen(
        [*made.command, *made.args],
        env={"PATH": "/usr/bin:/bin"} if environment is None else environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=reap if reaper else None,
    )
    try:
        yield process
    finally:
        for pid in (*children(process.pid), process.pid):
            if process.poll() is None or pid != process.pid:
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=20)


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def until(condition: Callable[[], object], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never became so"
        time.sleep(0.02)


def said(engine: Sequence[str], **options: object) -> str:
    with running(engine, **options) as process:  # type: ignore[arg-type]
        assert process.stdout is not None
        text = process.stdout.read().decode()
        process.wait(20)
        return text


class TestTransparent:
    """What an engine notices of it: nothing."""

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("exit 0", 0),
            ("exit 3", 3),
            ("kill -TERM $$", 143),
            ("kill -KILL $$", 137),
            ("kill -SEGV $$", 139),
        ],
    )
    def test_exit_codes(self, text: str, code: int) -> None:
        with running(["/bin/sh", "-c", text]) as process:
            assert process.wait(20) == code

    def test_arguments_are_words_and_never_read_as_a_program(self) -> None:
        words = [
            "a b",
            "",
            "'",
            '"',
            "$HOME",
            "$(id)",
            "`id`",
            "*",
            "\\",
            "--x={\"y\": 'z'}",
            "é\n",
        ]
        program = "import json, sys; print(json.dumps(sys.argv[1:]))"
        assert json.loads(said([sys.executable, "-c", program, *words])) == words

    def test_output_and_environment(self) -> None:
        """PYTHONPATH is for the engine, and does not break a process 1 that is Python."""
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"}
        engine = ["/bin/sh", "-c", "echo $PYTHONPATH; echo wrong >&2; pwd"]
        with running(engine, environment=environment) as process:
            out, err = process.communicate(timeout=20)
        assert (out.decode(), err.decode()) == (f"/nowhere\n{Path.cwd()}\n", "wrong\n")

    def test_signals_are_as_without_it(self) -> None:
        engine = ["/bin/grep", "^Sig[BIC]", "/proc/self/status"]
        direct = subprocess.run(engine, capture_output=True, text=True, check=True, timeout=20)
        assert said(engine) == direct.stdout

    @pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2"])
    def test_other_signals_are_passed_on(self, container: Container, name: str) -> None:
        container.send(signal.Signals[name])
        container.heard(name)
        assert container.process.poll() is None

    def test_the_engine_has_a_process_group_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it sends to all of its group is no word to process 1."""
        monkeypatch.setattr(firstprocess, "PATIENCE_SECONDS", 0.1)
        with running(["/bin/sh", "-c", "trap '' TERM; kill -TERM 0; sleep 1; exit 4"]) as process:
            assert process.wait(20) == 4

    def test_an_image_without_python_runs_the_engine_itself(self) -> None:
        engine = ["/bin/sh", "-c", 'echo $$ "$@"', "x", "a b", "$c"]
        with running(engine, environment={"PATH": "/nowhere"}) as process:
            assert process.stdout is not None
            assert process.stdout.read().decode() == f"{process.pid} a b $c\n"

    def test_it_reaps_what_others_leave_behind(self) -> None:
        """As process 1 is the parent of all orphans, so is it here."""
        engine = ["/bin/sh", "-c", "(/bin/sh -c 'echo $$; exit 0' &) ; exec sleep 600"]
        with running(engine, reaper=True) as process:
            assert process.stdout is not None
            orphan = int(process.stdout.readline())
            until(lambda: not Path(f"/proc/{orphan}").exists())
            assert process.poll() is None


class TestMissing:
    def test_a_program_that_is_not_there(self) -> None:
        with running(["no-such-engine", "serve"]) as process:
            _, error = process.communicate(timeout=20)
        assert process.returncode == firstprocess.MISSING_PROGRAM
        assert error.decode() == (
            "the image does not have the program no-such-engine (No such file or directory): "
            "correct engine.image or engine.type\n"
        )

    def test_a_program_that_cannot_be_run(self, tmp_path: Path) -> None:
        program = tmp_path / "vllm"
        program.write_text("no program")
        program.chmod(0o644)
        with running([str(program)]) as process:
            _, error = process.communicate(timeout=20)
        assert process.returncode == firstprocess.UNUSABLE_PROGRAM
        assert "cannot be run" in error.decode()
        assert "correct engine.image" in error.decode()


class TestLoading:
    """Told to end before it has ever been ready."""

    def test_an_engine_without_a_handler_ends_at_once(self) -> None:
        with running(["/bin/sh", "-c", "echo up; exec sleep 600"]) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 143

    @pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT"])
    def test_one_that_does_not_end_is_killed(self, container: Container, name: str) -> None:
        container.send(signal.Signals[name])
        assert container.process.wait(20) == 137
        assert name in container.log()

    def test_listening_is_not_ready(self, container: Container) -> None:
        """SGLang answers 503 before it is ready."""
        container.says("503")
        container.send(signal.SIGTERM)
        assert container.process.wait(20) == 137

    def test_an_engine_that_fails_is_not_waited_for(self, container: Container) -> None:
        container.end(5)
        assert container.process.wait(20) == 5


class TestServed:
    """Told to end after it was ready: the engine is waited for."""

    def check_that_it_waits(self, container: Container) -> None:
        container.send(signal.SIGTERM)
        container.heard("SIGTERM")
        # Far beyond the time that an engine gets which loads.
        with pytest.raises(subprocess.TimeoutExpired):
            container.process.wait(1.5)
        container.end(7)
        assert container.process.wait(20) == 7
        assert "child SIGTERM" not in container.log()

    def test_it_is_waited_for(self, container: Container) -> None:
        container.says("200")
        container.heard("GET /health HTTP/1.1 -> 200")
        self.check_that_it_waits(container)

    def test_it_is_asked_no_more_and_what_was_ready_stays_so(self, container: Container) -> None:
        """Also while it is overloaded, drains or has stopped listening."""
        container.says("200")
        container.heard("GET /health HTTP/1.1 -> 200")
        container.says("503")
        container.says("")
        self.check_that_it_waits(container)
        assert sum("GET" in line for line in container.log()) == 1

    def test_one_that_has_just_become_ready(self, container: Container) -> None:
        """It is asked once more when TERM comes."""
        container.says("200")
        self.check_that_it_waits(container)

    def test_one_that_listens_and_does_not_answer_may_serve(self, container: Container) -> None:
        container.says("silent")
        self.check_that_it_waits(container)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    destination = tmp_path_factory.mktemp("engines")
    install(destination)
    return destination


NAMESPACE = ("unshare", "--map-root-user", "--pid", "--fork", "--kill-child=KILL")
LOADING = {"vllm": ("2", "Initializing a V1 LLM engine"), "sglang": ("1", "server_args=")}


class TestNamespace:
    """The simulated engines in a PID namespace, with and without our process 1."""

    @contextmanager
    def loading(self, command: Sequence[str], name: str, log: Path) -> Iterator[Namespace]:
        """It loads for ever; process 1 of the namespace and the process that waits for it."""
        part, line = LOADING[name]
        environment = {"PATH": "/usr/bin:/bin", "SIMULATOR_LOAD_SECONDS": "0.1"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*NAMESPACE, *command],
                env={**environment, "SIMULATOR_HANG_AT_LOAD": part},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            until(lambda: line in log.read_text())
            (first,) = children(process.pid)
            yield Namespace(process, first)
        finally:
            process.kill()
            process.wait(20)

    def command(self, tree: Path, name: str) -> tuple[list[str], int]:
        port = free_port()
        model = ["org/model"] if name == "vllm" else ["--model-path=org/model"]
        return [str(tree / "bin" / name), "serve", *model, f"--port={port}"], port

    @pytest.mark.parametrize("name", LOADING)
    def test_an_engine_that_is_process_1_is_not_ended(
        self, tree: Path, tmp_path: Path, name: str
    ) -> None:
        """Why there is one of ours."""
        engine, _ = self.command(tree, name)
        with self.loading(engine, name, tmp_path / "log") as found:
            os.kill(found.first, signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                found.process.wait(firstprocess.PATIENCE_SECONDS + 2)

    @pytest.mark.parametrize(("name", "code"), [("vllm", 137), ("sglang", 143)])
    def test_under_ours_it_is_and_its_children_with_it(
        self, tree: Path, tmp_path: Path, name: str, code: int
    ) -> None:
        engine, port = self.command(tree, name)
        made = under_first_process(engine, port=port, path="/health")
        with self.loading([*made.command, *made.args], name, tmp_path / "log") as found:
            (main,) = children(found.first)
            until(lambda: bool(children(main)))
            rest = children(main)
            os.kill(found.first, signal.SIGTERM)
            assert found.process.wait(20) == code
            assert not any(Path(f"/proc/{pid}").exists() for pid in (main, *rest))


@dataclass(frozen=True)
class Namespace:
    """A PID namespace.

    Attributes:
        process: ends with it, and as it does.
        first: its process 1, by its number outside.
    """

    process: subprocess.Popen[bytes]
    first: int
