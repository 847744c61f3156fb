"""The batch script: what is rendered, and how it behaves with scripted SLURM commands."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.api.reserved_options import SHELL_ENVIRONMENT, SHELL_ENVIRONMENT_PREFIX
from isthmus.backends.slurm.options import check_option
from isthmus.backends.slurm.records import BastionCall, JobTemplate, SiteFacts
from isthmus.backends.slurm.script import (
    identity_comment,
    parse_comment,
    render_script,
    sbatch_options,
)
from isthmus.backends.slurm.work_paths import claim_path, key_path
from playground.engines.install import install

ATTEMPT = "x7k2qp"
NAME = f"llama-test0001-0123456789-0-{ATTEMPT}"
COMMENT = f"isthmus:v1:test0001:default/llama:hpc:0:{ATTEMPT}"
SITE = SiteFacts(
    work_directory="/scratch/svc/isthmus",
    ports_from=41000,
    ports_to=41999,
    default_partition="gpu",
    default_account=None,
    default_qos="serving",
    default_time_limit_minutes=480,
)
TEMPLATE = JobTemplate(
    argv=("sglang", "--port=@PORT@", "--weight-version", "@ATTEMPT@"),
    env=(("HF_HUB_OFFLINE", "1"), ("OWN_URL", "http://localhost:@PORT@/")),
    gpus=2,
    gpu_type="h100",
    cpus=8,
    memory_mib=65536,
)


def render(template: JobTemplate = TEMPLATE, site: SiteFacts = SITE) -> str:
    return render_script(
        template=template, site=site, attempt=ATTEMPT, job_name=NAME, comment=COMMENT
    )


def options(template: JobTemplate = TEMPLATE, site: SiteFacts = SITE) -> list[str]:
    return list(sbatch_options(template=template, site=site, job_name=NAME))


# ---- Rendering


def test_script_is_valid_shell(tmp_path: Path) -> None:
    script = render(site=replace(SITE, setup="source /opt/env.sh\nexport A='b c'", modules=("a",)))
    assert script.startswith("#!/bin/bash\n")
    assert "@" not in re.sub(r"\$\{?\w+\[@\]\}?|#\w+\[@\]|\"\$@\"|\$@", "", script)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=10)


def test_only_the_constants_differ_between_scripts() -> None:
    body = render().split("\nisthmus_engine_port=", 1)[1]
    assert body == render(JobTemplate(argv=("x",))).split("\nisthmus_engine_port=", 1)[1]


def test_nothing_in_a_script_can_pass_for_a_directive() -> None:
    hostile = replace(SITE, setup="#SBATCH --uid=0\n#SBATCH --wrap=x")
    before_commands = render(site=hostile).split("\nset -u\n", 1)[0]
    assert "#SBATCH" not in before_commands


TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from(list("'\"$`\\!;&|@(){}#\t")),
    max_size=30,
)


@given(
    argv=st.lists(TEXT | st.sampled_from(["@PORT@", "--port=@PORT@", "@ATTEMPT@"]), max_size=6),
    values=st.lists(TEXT, max_size=3),
    setup=TEXT,
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_value_breaks_out_of_its_quotes(argv: list[str], values: list[str], setup: str) -> None:
    template = JobTemplate(
        argv=("engine", *argv),
        env=tuple((f"VALUE_{number}", value) for number, value in enumerate(values)),
    )
    constants = render(template, replace(SITE, setup=setup)).split("\nisthmus_engine_port=", 1)[0]
    show = "\n".join(
        [
            "export SLURM_JOB_ID=1 isthmus_engine_port=41007",
            constants.split("export SLURM_EXPORT_ENV=ALL", 1)[1],
            "set_command; set_environment",
            'printf "%s\\0" "$isthmus_setup" "${isthmus_engine_command[@]}"',
            *(f'printf "%s\\0" "$VALUE_{number}"' for number in range(len(values))),
        ]
    )
    done = subprocess.run(["bash", "-c", show], capture_output=True, check=True, timeout=10)
    assert done.stderr == b""
    expected = [setup, *(filled(text) for text in ("engine", *argv, *values))]
    assert done.stdout.decode().split("\0")[:-1] == expected


@given(argv=st.lists(TEXT, min_size=1, max_size=6))
def test_argument_line_reads_back(argv: list[str]) -> None:
    script = render(JobTemplate(argv=tuple(argv)))
    line = next(
        line for line in script.splitlines() if line.startswith("  isthmus_engine_command=(")
    )
    words = shlex.split(line.strip().removeprefix("isthmus_engine_command=(").removesuffix(")"))
    assert words == [
        text.replace("@ATTEMPT@", ATTEMPT).replace("@PORT@", "$isthmus_engine_port")
        for text in argv
    ]


def filled(text: str) -> str:
    return text.replace("@ATTEMPT@", ATTEMPT).replace("@PORT@", "41007")


@pytest.mark.parametrize(
    ("template", "site", "attempt", "name"),
    [
        (replace(TEMPLATE, argv=()), SITE, ATTEMPT, NAME),
        (replace(TEMPLATE, argv=("a\nb",)), SITE, ATTEMPT, NAME),
        (replace(TEMPLATE, argv=("a\0b",)), SITE, ATTEMPT, NAME),
        (replace(TEMPLATE, argv=("a\rb",)), SITE, ATTEMPT, NAME),
        (replace(TEMPLATE, argv=("\ud800",)), SITE, ATTEMPT, NAME),
        (replace(TEMPLATE, env=(("A=B;C", "1"),)), SITE, ATTEMPT, NAME),
        (TEMPLATE, replace(SITE, work_directory="relative"), ATTEMPT, NAME),
        (TEMPLATE, replace(SITE, work_directory="/a/%j"), ATTEMPT, NAME),
        (TEMPLATE, replace(SITE, work_directory="/a/../b"), ATTEMPT, NAME),
        (TEMPLATE, replace(SITE, ports_from=0), ATTEMPT, NAME),
        (TEMPLATE, replace(SITE, ports_from=42000), ATTEMPT, NAME),
        (TEMPLATE, replace(SITE, modules=("-f",)), ATTEMPT, NAME),
        (TEMPLATE, SITE, "x7k2q", NAME),
        (TEMPLATE, SITE, "x7k2q;", NAME),
        (TEMPLATE, SITE, ATTEMPT, "a/../b"),
        (TEMPLATE, SITE, ATTEMPT, "a b"),
    ],
)
def test_values_that_cannot_stand_in_a_script(
    template: JobTemplate, site: SiteFacts, attempt: str, name: str
) -> None:
    with pytest.raises(ValueError, match=r"."):
        render_script(template=template, site=site, attempt=attempt, job_name=name, comment=COMMENT)


def test_identity_comment() -> None:
    made = identity_comment(
        installation="test0001",
        namespace="default",
        deployment="llama",
        pool="hpc",
        slot=0,
        attempt=ATTEMPT,
    )
    assert made == COMMENT
    with pytest.raises(ValueError, match="identity"):
        identity_comment(
            installation="a:b",
            namespace="default",
            deployment="llama",
            pool="hpc",
            slot=0,
            attempt=ATTEMPT,
        )


# ---- Options


def test_options_of_a_site() -> None:
    assert options() == [
        "--nodes=1",
        "--ntasks=1",
        "--time=480",
        "--chdir=/scratch/svc/isthmus",
        f"--output=/scratch/svc/isthmus/{NAME}.%j.log",
        "--open-mode=append",
        "--export=ALL",
        "--signal=B:USR1@270",
        "--partition=gpu",
        "--qos=serving",
        "--gres=gpu:h100:2",
        "--cpus-per-task=8",
        "--mem=65536M",
    ]


def test_options_of_another_site() -> None:
    site = replace(
        SITE,
        gpu_directive="gpus-per-node",
        gpu_types={"h100": "nvidia_h100_80gb"},
        memory_directive="mem-per-gpu",
        exclusive=True,
    )
    wishes = replace(
        TEMPLATE,
        partitions=("a", "b"),
        account="proj",
        qos="high",
        time_limit_minutes=30,
        sbatch_options=("--constraint=nvlink&rackA", "--time-min=10"),
    )
    made = sbatch_options(
        template=wishes, site=site, job_name=NAME, excluded_nodes=("gpu07", "gpu02")
    )
    assert set(made) >= {
        "--time=30",
        "--partition=a,b",
        "--account=proj",
        "--qos=high",
        "--gpus-per-node=nvidia_h100_80gb:2",
        "--mem-per-gpu=32768M",
        "--exclusive",
        "--exclude=gpu02,gpu07",
        "--constraint=nvlink&rackA",
    }
    assert not any(option.startswith("--signal") for option in made)


def test_no_directive_is_no_directive() -> None:
    made = options(site=replace(SITE, gpu_directive="none", memory_directive="none"))
    assert not any("gpu:" in option or "--mem" in option for option in made)


def test_short_jobs_get_no_early_warning() -> None:
    assert "--signal" not in " ".join(options(replace(TEMPLATE, time_limit_minutes=2)))
    assert "--signal=B:USR1@240" in options(replace(TEMPLATE, time_limit_minutes=10))


@pytest.mark.parametrize(
    "option",
    [
        "--job-name=x",
        "--comment=x",
        "--output=/etc/x",
        "--export=NONE",
        "--requeue",
        "--wrap=x",
        "--uid=0",
        "--array=1-9",
        "--dependency=singleton",
        "--signal=KILL",
        "--time=1",
        "--chdir=/",
        "--no-such-thing",
        "-p gpu",
        "gpu",
        "--constraint=a\n--wrap=x",
        "--constraint=-x",
        "--constraint=",
        "--constraint=" + "x" * 300,
        "--Constraint=x",
    ],
)
def test_options_that_users_may_not_set(option: str) -> None:
    assert check_option(option)
    with pytest.raises(ValueError, match=r"."):
        options(replace(TEMPLATE, sbatch_options=(option,)))


def test_options_that_users_may_set() -> None:
    for option in ("--constraint=a|b", "--reservation=r", "--nice=10", "--contiguous"):
        assert check_option(option) is None


def test_unknown_gpu_type_names_the_known_ones() -> None:
    site = replace(SITE, gpu_types={"a100": "a100", "b200": "b200"})
    with pytest.raises(ValueError, match="a100, b200"):
        options(site=site)


# ---- Behaviour under bash, with the SLURM commands scripted

ENGINE = """
import http.server, os, signal, sys, time
port, where = int(sys.argv[1]), sys.argv[2]
def ended(number, frame):
    with open(where + ".term", "a") as log: log.write("TERM\\n")
    raise SystemExit(int(os.environ.get("ENGINE_EXIT", "0")))
signal.signal(signal.SIGTERM, ended)
class Server(http.server.HTTPServer):
    allow_reuse_address = False
server = Server(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler)
open(where + ".new", "w").write(str(port))
os.rename(where + ".new", where)
server.serve_forever()
"""


@dataclass
class Node:
    """One machine on which the script runs, as slurmd would start it."""

    folder: Path
    site: SiteFacts
    job_id: int = 17
    template: JobTemplate = field(default_factory=lambda: JobTemplate(argv=("true",)))
    term_lead: int = 330
    environment: dict[str, str] = field(default_factory=dict)
    call: BastionCall | None = None
    edit: Callable[[str], str] = str
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, name: str, body: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def start(self, *, job_id: int | None = None) -> subprocess.Popen[bytes]:
        script = self.folder / f"script-{len(self.started)}"
        text = render_script(
            template=self.template,
            site=self.site,
            attempt=ATTEMPT,
            job_name=NAME,
            comment=COMMENT,
            term_lead_seconds=self.term_lead,
            call=self.call,
        )
        script.write_text(self.edit(text))
        environment = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "SLURM_JOB_ID": str(job_id or self.job_id),
            "SLURMD_NODENAME": "gpu01",
            **self.environment,
        }
        with (self.folder / f"log-{len(self.started)}").open("wb") as log:
            process = subprocess.Popen(
                ["bash", str(script)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> int:
        return process.wait(timeout=20)

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("log-*")))

    def published(self) -> str:
        path = self.folder / "comment"
        return path.read_text().strip() if path.exists() else ""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    (tmp_path / "bin").mkdir()
    (tmp_path / "engine.py").write_text(ENGINE)
    site = replace(SITE, work_directory=str(tmp_path / "work"), ports_from=23100, ports_to=23149)
    engine = (sys.executable, str(tmp_path / "engine.py"), "@PORT@", str(tmp_path / "up"))
    node = Node(tmp_path, site, template=JobTemplate(argv=engine))
    node.command(
        "scontrol", f'echo "$@" > {tmp_path}/said; echo "${{3#Comment=}}" > {tmp_path}/comment'
    )
    node.command("squeue", "echo N/A")
    yield node
    for process in node.started:
        end_session(process.pid)
        process.wait(timeout=10)


def end_session(leader: int) -> None:
    """Kill all that a job has started, as SLURM does: an engine has a process group of its own."""
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            session = int(place.read_text().rsplit(")", 1)[1].split()[3])
            if session == leader:
                os.kill(int(place.parent.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulators, installed once."""
    destination = tmp_path_factory.mktemp("engines")
    install(destination)
    return destination


def publishing(node: Node) -> str:
    return (
        f'echo "${{3#Comment=}}" > {node.folder}/comment.new && mv {node.folder}/comment{{.new,}}'
    )


def eventually(condition: object, node: Node) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"did not come true:\n{node.log()}")


def serving(node: Node) -> int:
    eventually((node.folder / "up").exists, node)
    return int((node.folder / "up").read_text())


def test_engine_serves_on_the_published_port(node: Node) -> None:
    process = node.start()
    port = serving(node)
    eventually(lambda: parse_comment(node.published()) is not None, node)
    published = parse_comment(node.published())
    assert published is not None
    assert (published.attempt, published.port) == (ATTEMPT, port)
    assert "JobId=17" in (node.folder / "said").read_text()
    process.send_signal(signal.SIGTERM)
    assert node.end(process) == 0
    assert (node.folder / "up.term").read_text() == "TERM\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_exit_code_is_the_engines(node: Node, number: signal.Signals) -> None:
    node.environment["ENGINE_EXIT"] = "7"
    process = node.start()
    serving(node)
    process.send_signal(number)
    assert node.end(process) == 7


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 3), (75, 1), (74, 1), (78, 1)])
def test_codes_of_the_script_are_kept_for_the_script(node: Node, code: int, expected: int) -> None:
    node.template = JobTemplate(argv=("bash", "-c", f"exit {code}"))
    assert node.end(node.start()) == expected


def test_engine_that_does_not_exist(node: Node) -> None:
    node.template = JobTemplate(argv=("no-such-engine",))
    assert node.end(node.start()) == 127


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def left_behind(node: Node, *, stubborn: bool = False) -> tuple[str, Path]:
    """Shell text that starts a process beside the engine, and the file that says its id."""
    place = node.folder / "left"
    ignore = "trap '' TERM; " if stubborn else ""
    child = f"{ignore}echo $$ > {place}.new; mv {place}.new {place}; while :; do sleep 0.1; done"
    return f"bash -c {shlex.quote(child)} & while [ ! -e {place} ]; do sleep 0.05; done;", place


@pytest.mark.parametrize("stubborn", [False, True])
def test_nothing_of_an_engine_outlives_its_main_process(node: Node, stubborn: bool) -> None:
    child, place = left_behind(node, stubborn=stubborn)
    node.template = JobTemplate(argv=("bash", "-c", f"{child} exit 3"))
    assert node.end(node.start()) == 3
    assert not alive(int(place.read_text()))


def test_nothing_of_a_killed_vllm_outlives_its_job(node: Node, engines: Path) -> None:
    node.environment["SIMULATOR_LOAD_SECONDS"] = "0"
    node.template = JobTemplate(argv=(str(engines / "bin/vllm"), "serve", "m", "--port=@PORT@"))
    process = node.start()
    eventually(lambda: "Application startup complete." in node.log(), node)
    said = re.search(r"APIServer pid=(\d+)", node.log())
    assert said is not None
    main = int(said[1])
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    assert len(children) == 2
    os.kill(main, signal.SIGKILL)
    assert node.end(process) == 137
    assert [pid for pid in children if alive(int(pid))] == []


def test_what_is_left_of_an_engine_ends_before_it_is_started_again(node: Node) -> None:
    """Its port was taken while it loaded."""
    first = node.site.ports_from + 17 * 37 % 50
    child, place = left_behind(node)
    again = f'if [ -e {place} ]; then kill -0 "$(cat {place})" && exit 9; exit 0; fi'
    wait = f"while [ ! -e {node.folder}/go ]; do sleep 0.05; done; exit 3"
    with socket.socket() as taken:
        node.template = JobTemplate(argv=("bash", "-c", f"{again}; {child} {wait}"))
        process = node.start()
        eventually(place.exists, node)
        taken.bind(("127.0.0.1", first))
        taken.listen()
        (node.folder / "go").touch()
        assert node.end(process) == 0


def test_what_is_not_the_engines_is_left_alone(node: Node) -> None:
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        child, place = left_behind(node)
        node.template = JobTemplate(argv=("bash", "-c", f"{child} exit 0"))
        assert node.end(node.start()) == 0
        assert not alive(int(place.read_text()))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait(10)


def test_an_engine_that_is_suspended_has_not_ended(node: Node) -> None:
    process = node.start()
    serving(node)
    pid = engine_of(process.pid, node)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.5)  # in which nothing may happen
    assert process.poll() is None
    assert "the engine ended" not in node.log()
    process.send_signal(signal.SIGTERM)
    os.kill(pid, signal.SIGCONT)
    assert node.end(process) == 0


def test_the_engine_leads_a_process_group_of_its_own(node: Node) -> None:
    process = node.start()
    serving(node)
    pid = engine_of(process.pid, node)
    assert os.getpgid(pid) == pid
    assert os.getpgid(process.pid) == process.pid
    process.terminate()
    assert node.end(process) == 0


def engine_of(shell: int, node: Node) -> int:
    """The engine among the children of a batch shell."""
    for word in Path(f"/proc/{shell}/task/{shell}/children").read_text().split():
        if str(node.folder / "engine.py") in Path(f"/proc/{word}/cmdline").read_text():
            return int(word)
    raise AssertionError("there is no engine")


def test_gate_lets_one_start_through(node: Node) -> None:
    first = node.start()
    serving(node)
    assert node.end(node.start(job_id=18)) == 75
    assert node.end(node.start()) == 75  # the same id and restart count: after a controller crash
    node.environment["SLURM_RESTART_COUNT"] = "1"
    assert node.end(node.start()) == 75
    assert first.poll() is None
    claim = Path(claim_path(work_directory=node.site.work_directory, job_name=NAME))
    assert str(claim.readlink()).startswith("17.0.gpu01.")
    assert f"claimed by {claim.readlink()}" in node.log()


def test_gate_is_one_atomic_step(node: Node) -> None:
    node.template = JobTemplate(argv=("true",))
    codes = [node.end(process) for process in [node.start(job_id=n) for n in range(20, 30)]]
    assert sorted(codes) == [0] + [75] * 9


def test_unwritable_work_directory(node: Node) -> None:
    (node.folder / "work").write_text("a file")
    assert node.end(node.start()) == 74


def test_ports_in_use_are_passed_over(node: Node) -> None:
    first = node.site.ports_from + 17 * 37 % 50
    with socket.socket() as taken, socket.socket(socket.AF_INET6) as taken_too:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        taken_too.bind(("::", first + 1))
        taken_too.listen()
        process = node.start()
        assert serving(node) == first + 2
        process.terminate()
        assert node.end(process) == 0


def test_locked_ports_are_passed_over(node: Node) -> None:
    """A second job of this user holds a port that its engine has not opened yet."""
    node.site = replace(node.site, ports_to=node.site.ports_from)
    node.template = JobTemplate(argv=("sleep", "60"))
    first = node.start()
    eventually(lambda: "starting the engine" in node.log(), node)
    claim = Path(claim_path(work_directory=node.site.work_directory, job_name=NAME))
    claim.unlink()
    assert node.end(node.start(job_id=18)) == 78
    assert "all ports" in node.log()
    first.terminate()
    assert node.end(first) == 143


def test_port_taken_while_loading_is_replaced(node: Node) -> None:
    """The engine fails to bind because somebody else took the port: the next one is tried."""
    first = node.site.ports_from + 17 * 37 % 50
    loading = node.folder / "loading"
    engine = f'touch {loading}; while [ -e {loading} ]; do sleep 0.05; done; exec "$@"'
    node.template = JobTemplate(argv=("bash", "-c", engine, "x", *node.template.argv))
    with socket.socket() as taken:
        process = node.start()
        eventually(loading.exists, node)
        taken.bind(("127.0.0.1", first))
        taken.listen()
        loading.unlink()
        eventually(loading.exists, node)
        loading.unlink()
        assert serving(node) == first + 1
        eventually(lambda: node.published().endswith(f":port={first + 1}"), node)
        process.terminate()
        assert node.end(process) == 0


def test_failing_engine_is_not_started_again(node: Node) -> None:
    count = node.folder / "count"
    node.template = JobTemplate(argv=("bash", "-c", f"echo x >> {count}; exit 3"))
    assert node.end(node.start()) == 3
    assert count.read_text() == "x\n"


def test_publishing_is_tried_again_while_the_controller_is_away(node: Node) -> None:
    node.command(
        "scontrol", f'[ -e {node.folder}/back ] && echo "${{3#Comment=}}" > {node.folder}/comment'
    )
    process = node.start()
    serving(node)
    (node.folder / "back").touch()
    eventually(lambda: parse_comment(node.published()) is not None, node)
    process.terminate()
    assert node.end(process) == 0


def test_script_ends_at_once_though_the_controller_is_away(node: Node) -> None:
    node.command("scontrol", "exit 1")
    node.command("squeue", "exit 1")
    node.command("sleep", f"touch {node.folder}/waits; exec /bin/sleep 3600")
    process = node.start()
    serving(node)
    eventually((node.folder / "waits").exists, node)
    process.terminate()
    assert node.end(process) == 0


def waits(node: Node, until: str) -> None:
    """A long `sleep` notes its seconds; the first lasts until a file is there, others go on."""
    folder = node.folder
    short = '[ "${1%.*}" -gt 5 ] || exec /bin/sleep "$1"'
    first = f"until [ -e {folder}/{until} ]; do /bin/sleep 0.02; done"
    others = f'[ "$(wc -l < {folder}/slept)" -eq 1 ] || exec /bin/sleep 3600'
    node.command("sleep", f'{short}\necho "$1" >> {folder}/slept\n{others}\n{first}')


def test_engine_is_ended_before_the_granted_end(node: Node) -> None:
    node.term_lead = 300
    asked = node.folder / "asked"
    later = f"touch {asked}; echo $(($(date +%s) + 1000))"
    node.command("squeue", f"if [ -e {asked} ]; then date +%s; else {later}; fi")
    waits(node, until="up")
    process = node.start()
    assert node.end(process) == 0
    assert (node.folder / "up.term").read_text() == "TERM\n"
    assert 600 < int((node.folder / "slept").read_text()) <= 700, "until 300 s before the end"


def test_end_that_was_moved_is_kept(node: Node) -> None:
    node.term_lead = 300
    end = node.folder / "end"
    end.write_text(str(int(time.time()) + 1000))
    node.command("squeue", f"cat {end}; echo x >> {node.folder}/asked")
    waits(node, until="moved")
    process = node.start()
    serving(node)
    eventually((node.folder / "slept").exists, node)
    end.write_text(str(int(time.time()) + 3600))
    (node.folder / "moved").touch()
    slept = node.folder / "slept"
    eventually(lambda: len(slept.read_text().split()) == 2, node)
    assert 3200 < int(slept.read_text().split()[1]) <= 3300
    assert process.poll() is None
    assert not (node.folder / "up.term").exists()
    process.terminate()
    assert node.end(process) == 0


def test_setup_and_modules_come_before_the_engine(node: Node) -> None:
    seen = node.folder / "seen"
    setup = 'module() { echo "module $*"; }\nexport FROM_SETUP="$UNSET yes"\nset -e\nfalse_name'
    node.site = replace(node.site, setup=setup)
    node.template = JobTemplate(
        argv=("bash", "-c", f'echo "$FROM_SETUP $OWN $SLURM_EXPORT_ENV $PWD" > {seen}'),
        env=(("OWN", "x y"),),
    )
    assert node.end(node.start()) == 0
    run = f"{node.site.work_directory}/{NAME}/17.0"
    assert seen.read_text() == f" yes x y ALL {run}\n"


def test_missing_module_is_an_error(node: Node) -> None:
    node.site = replace(node.site, modules=("cuda/99",))
    node.environment["BASH_FUNC_module%%"] = "() { return 1; }"
    assert node.end(node.start()) == 78
    assert "cuda/99" in node.log()


def test_files_are_private(node: Node) -> None:
    node.template = JobTemplate(argv=("bash", "-c", "touch made"))
    assert node.end(node.start()) == 0
    made = Path(node.site.work_directory) / NAME / "17.0" / "made"
    assert made.stat().st_mode & 0o077 == 0


# ---- The API key

KEY = "isthmus-0123456789.abc_DEF~x/y+z="


def place_key(node: Node, *, mode: int = 0o600) -> Path:
    work = Path(node.site.work_directory)
    work.mkdir(exist_ok=True)
    place = Path(key_path(work_directory=str(work), job_name=NAME))
    place.write_text(KEY)
    place.chmod(mode)
    return place


def private_folders(node: Node) -> list[Path]:
    return list(Path("/dev/shm").glob(f"isthmus-{node.job_id}.*"))


@pytest.fixture
def keyed(node: Node) -> Node:
    """An engine that takes its key by a file, writes all it knows into its log and then serves."""
    node.job_id = os.getpid()  # names the private folder, which lies outside of this test's
    wrapper = node.folder / "wrapper"
    wrapper.write_text('cat "$1"; echo "by variable: $VLLM_API_KEY"; shift; exec "$@"\n')
    node.template = replace(
        node.template,
        key="abcdefghij",
        argv=("bash", str(wrapper), "@KEYFILE@", *node.template.argv),
    )
    return node


def test_key_reaches_the_engine_by_a_private_file_and_nobody_else(keyed: Node) -> None:
    shared = place_key(keyed)
    process = keyed.start()
    serving(keyed)
    eventually(lambda: 'api-key: "********"' in keyed.log(), keyed)
    assert not shared.exists(), "it lies where it was shared"
    eventually(lambda: not private_folders(keyed), keyed)
    said = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, check=True, text=True)
    assert KEY not in said.stdout
    shared.write_text("a copy that came late")
    process.send_signal(signal.SIGTERM)
    assert keyed.end(process) == 0
    assert KEY not in keyed.log()
    assert "the engine ended with 0" in keyed.log()
    assert not shared.exists()


def test_key_reaches_the_engine_by_its_environment(keyed: Node) -> None:
    place_key(keyed)
    keyed.template = replace(
        keyed.template,
        key_variable="VLLM_API_KEY",
        argv=("bash", "-c", f'[ "$VLLM_API_KEY" = "{KEY}" ] && [ -z "@KEYFILE@" ]'),
    )
    assert keyed.end(keyed.start()) == 0
    assert not private_folders(keyed)


def test_key_file_of_an_engine_that_never_listens_is_deleted_too(keyed: Node) -> None:
    place_key(keyed)
    keyed.template = replace(keyed.template, argv=("bash", "-c", "cat @KEYFILE@; exit 3"))
    assert keyed.end(keyed.start()) == 3
    assert 'api-key: "********"' in keyed.log()
    assert not private_folders(keyed)


def test_key_that_others_can_read_is_not_used(keyed: Node) -> None:
    place_key(keyed, mode=0o644)
    assert keyed.end(keyed.start()) == 78
    assert "only its owner can read" in keyed.log()


def test_no_key_no_difference(node: Node) -> None:
    node.template = JobTemplate(argv=("bash", "-c", "echo said by the engine"))
    assert node.end(node.start()) == 0
    assert "said by the engine" in node.log()


# ---- Names of others in this shell (M6)

OWN_NAMES = sorted(set(re.findall(r"\bisthmus_(\w+)", render(replace(TEMPLATE, key="k")))))
"""The script's own variables without their prefix: names that an engine or a site may have."""
HARMLESS = [
    *("CDPATH", "GLOBIGNORE", "HISTFILE", "HOME", "IFS", "OPTARG", "OPTERR", "PROMPT_COMMAND"),
    *("PS4", "REPLY", "TIMEFORMAT", "TMOUT", "TMPDIR", "_x"),
]
"""Variables that bash knows and that engines may be given: it hands them on as they are."""


def test_m6_whatever_bash_does_not_hand_on_as_it_is_is_refused() -> None:
    """Of all variables that the bash of this machine knows: refused, or exact in a child."""
    # `declare -p` shows no variable that was never read, so those of the manual are read first.
    named = " ".join(f"${{{name}:-}}" for name in sorted(SHELL_ENVIRONMENT))
    known = subprocess.run(
        ["bash", "-c", f": {named}; compgen -v"],
        capture_output=True,
        check=True,
        text=True,
        timeout=10,
    ).stdout.split()
    refused = {n for n in known if n.startswith(SHELL_ENVIRONMENT_PREFIX)} | SHELL_ENVIRONMENT
    passed = sorted({*known, *HARMLESS} - refused - {"_"})
    text = "".join(f"export {name}='x[$(echo ran >&2)]'\n" for name in passed)
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    command = f"{sys.executable} -c {shlex.quote(code)}"
    shell = f'set -u\nrun() {{\n{text}}}\nset -- {command}\nrun\nexec "$@"'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=10)
    assert done.stderr == ""
    seen = json.loads(done.stdout)
    assert {name: seen.get(name) for name in passed} == dict.fromkeys(passed, "x[$(echo ran >&2)]")


def test_m6_every_variable_of_the_script_has_its_prefix() -> None:
    script = render(replace(TEMPLATE, key="k"))
    code = re.sub(r"(?m)(^|\s)#.*$|'[^'\n]*'", "", script.split("isthmus_engine_port=", 1)[1])
    code = re.sub(r"-o \"?[A-Za-z]+=", "", code)  # what ssh is told
    named = [
        *re.findall(r"(?:^|[;({ ])(?:local |export )?([A-Za-z_]\w*)\+?=", code, re.MULTILINE),
        *re.findall(r"\bfor (\w+) in\b", code),
        *re.findall(r"\bread (?:-[a-z]+ (?:)?)*(\w+)", code),
        *re.findall(r"\bprintf -v (\w+)", code),
        *re.findall(r"\bexec \{(\w+)\}", code),
        *(
            name
            for line in re.findall(r"\blocal (.*)", code)
            for name in re.findall(r"(?:^|\s)([a-zA-Z_]\w*)(?==|\s|$)", line)
        ),
    ]
    # For one command, or words that one is told.
    others = {"IFS", "SLURM_TIME_FORMAT", "JobId", "Comment"}
    assert {n for n in named if not n.startswith("isthmus_")} <= others


@pytest.mark.parametrize("value", ["", "LEAK", "x[$(echo ran >&2)]"])
@pytest.mark.parametrize("by_variable", [False, True])
def test_m6_no_name_of_the_engines_environment_touches_the_script(
    keyed: Node, value: str, by_variable: bool
) -> None:
    place_key(keyed)
    engine, seen = keyed.folder / "show.py", keyed.folder / "seen"
    engine.write_text(
        "import json, os, sys\n"
        "print(open(sys.argv[2]).read() if sys.argv[2] else os.environ['VLLM_API_KEY'])\n"
        "json.dump([sys.argv, dict(os.environ)], open(sys.argv[1], 'w'))\nsys.exit(5)\n"
    )
    key_file = "" if by_variable else "@KEYFILE@"
    argv = (str(engine), str(seen), key_file, "--port=@PORT@", "a b", "")
    keyed.template = replace(
        keyed.template,
        key_variable="VLLM_API_KEY" if by_variable else None,
        argv=(sys.executable, *argv),
        env=tuple((name, value) for name in [*OWN_NAMES, *HARMLESS]),
    )
    assert keyed.end(keyed.start()) == 5, keyed.log()
    arguments, environment = json.loads(seen.read_text())
    assert {name: environment.get(name) for name in OWN_NAMES} == dict.fromkeys(OWN_NAMES, value)
    assert re.fullmatch(r"--port=231\d\d", arguments[3])
    assert [*arguments[:2], *arguments[4:]] == [*argv[:2], *argv[4:]]
    assert "\nran" not in keyed.log()
    if by_variable:
        assert environment["VLLM_API_KEY"] == KEY
    else:
        assert KEY not in keyed.log()
        assert 'api-key: "********"' in keyed.log()
    assert not private_folders(keyed)


def test_m6_names_of_the_script_are_refused() -> None:
    for name in ("isthmus_private", "RANDOM", "BASH_ARGV0"):
        with pytest.raises(ValueError, match="of the batch script"):
            render(replace(TEMPLATE, env=((name, ""),)))
    assert "export UID" not in render(replace(TEMPLATE, env=(("UID", "5"),)))


@pytest.mark.parametrize("value", ["", "x"])
def test_m6_no_name_of_the_sites_set_up_touches_the_script(node: Node, value: str) -> None:
    """A site's set-up may source what it likes, and leaves its variables to the engine."""
    names = [name for name in OWN_NAMES if name != "job_id"]
    node.site = replace(node.site, setup="\n".join(f"export {n}={value!r}" for n in names))
    seen = node.folder / "seen"
    node.template = JobTemplate(argv=("bash", "-c", f"env > {seen}"))
    assert node.end(node.start()) == 0
    assert {f"{name}={value}" for name in names} <= set(seen.read_text().splitlines())


# ---- Whose port is published (H1)


def loading(node: Node, command: tuple[str, ...] = ()) -> Path:
    """An engine that opens its port when a file is there."""
    go = node.folder / "go"
    wait = f'while [ ! -e {go} ]; do sleep 0.05; done; exec "$@"'
    node.template = JobTemplate(argv=("bash", "-c", wait, "x", *(command or node.template.argv)))
    return go


def open_at_publication(node: Node) -> Path:
    """A scontrol that notes whether somebody listens at the port that it is told."""
    noted = node.folder / "noted"
    connect = 'if (exec 4<>"/dev/tcp/127.0.0.1/${3##*:port=}"); then echo open; else echo shut; fi'
    node.command("scontrol", f"{connect} >> {noted} 2>/dev/null; {publishing(node)}")
    return noted


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_h1_the_port_is_published_once_the_engine_listens(
    node: Node, engines: Path, engine: str
) -> None:
    node.environment["SIMULATOR_LOAD_SECONDS"] = "2"
    model = ("m",) if engine == "vllm" else ("--model-path=m",)
    node.template = JobTemplate(
        argv=(str(engines / "bin" / engine), "serve", *model, "--port=@PORT@")
    )
    noted = open_at_publication(node)
    process = node.start()
    eventually(lambda: parse_comment(node.published()) is not None, node)
    assert noted.read_text() == "open\n"
    process.terminate()
    node.end(process)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_h1_a_strangers_port_is_not_published(node: Node, family: socket.AddressFamily) -> None:
    """Another process listens there before the engine does: the operator would send it the key."""
    go = loading(node)
    process = node.start()
    eventually(lambda: "starting the engine" in node.log(), node)
    with socket.socket(family) as stranger:
        if family == socket.AF_INET6:
            stranger.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        stranger.bind(("", node.site.ports_from + 17 * 37 % 50))
        stranger.listen()
        eventually(lambda: "is not published: another process" in node.log(), node)
        if family == socket.AF_INET6:  # beside it the engine can listen all the same
            go.touch()
            serving(node)
        assert node.published() == ""
    go.touch()
    eventually(lambda: parse_comment(node.published()) is not None, node)
    assert node.log().count("is not published") == 1
    process.terminate()
    assert node.end(process) == 0


@pytest.mark.parametrize("address", ["0.0.0.0", "::1"])
@pytest.mark.parametrize("how", ["itself", "a child in a session of its own"])
def test_h1_an_engines_listener_is_known(node: Node, address: str, how: str) -> None:
    text = (node.folder / "engine.py").read_text().replace("127.0.0.1", address)
    if ":" in address:
        text = text.replace("    allow_", "    address_family = 10\n    allow_")
    (node.folder / "engine.py").write_text(text)
    if how != "itself":
        child = 'setsid "$@" & trap "kill $!" TERM; wait; wait'
        node.template = JobTemplate(argv=("bash", "-c", child, "x", *node.template.argv))
    process = node.start()
    eventually(lambda: parse_comment(node.published()) is not None, node)
    process.terminate()
    node.end(process)


def test_h1_where_sockets_cannot_be_seen_the_port_is_published_and_that_is_said(
    node: Node,
) -> None:
    node.edit = lambda script: script.replace("/proc/net/", "/proc/nowhere/")
    loading(node)
    process = node.start()
    eventually(lambda: parse_comment(node.published()) is not None, node)
    assert node.log().count("does not show who listens") == 1
    process.terminate()
    node.end(process)


def test_h1_where_processes_cannot_be_seen_a_port_of_this_user_is_published(node: Node) -> None:
    node.command("find", "exit 1")
    go = loading(node)
    process = node.start()
    eventually(lambda: "starting the engine" in node.log(), node)
    go.touch()
    eventually(lambda: parse_comment(node.published()) is not None, node)
    assert node.log().count("cannot be seen further") == 1
    process.terminate()
    assert node.end(process) == 0


def test_h1_a_port_of_another_user_is_never_published(node: Node) -> None:
    """Whatever cannot be seen: whose a socket is stands in the node's own table."""
    if os.geteuid() != 0:
        pytest.skip("only root can listen as somebody else")
    node.command("find", "exit 1")
    go = loading(node)
    process = node.start()
    eventually(lambda: "starting the engine" in node.log(), node)
    port = node.site.ports_from + 17 * 37 % 50
    listen = (
        "import os, socket, sys; os.setuid(65534);s = socket.create_server(('', int(sys.argv[1])));"
    )
    stranger = subprocess.Popen(
        [sys.executable, "-c", f"{listen} sys.stdin.read()", str(port)], stdin=subprocess.PIPE
    )
    try:
        eventually(lambda: "is not published: another process" in node.log(), node)
        assert node.published() == ""
    finally:
        stranger.communicate(timeout=10)
    go.touch()
    eventually(lambda: parse_comment(node.published()) is not None, node)
    process.terminate()
    assert node.end(process) == 0


# ---- A comment that may not be changed (F6)


def test_f6_scontrols_words_are_told_once_and_the_port_goes_by_the_run_folder(node: Node) -> None:
    tries = node.folder / "tries"
    node.command(
        "scontrol",
        f"echo x >> {tries}; printf 'slurm_update error: no\\nchanges here\\n' >&2; exit 1",
    )
    process = node.start()
    port = serving(node)
    # When the third begins all has been said of the second.
    eventually(lambda: tries.exists() and len(tries.read_text().split()) > 2, node)
    assert "failed, and is tried again: slurm_update error: no changes here" in node.log()
    assert node.log().count("slurm_update error") == 1
    told = Path(node.site.work_directory) / NAME / "17.0" / "port"
    assert told.read_text() == f"{port}\n"
    process.terminate()
    assert node.end(process) == 0


# ---- The key of a bastion (L3)


def test_l3_a_tunnel_key_that_is_a_link_is_not_followed(node: Node) -> None:
    node.call = BastionCall(
        host="127.0.0.1", port=1, user="u", host_key="ssh-ed25519 AAAA", forward_port=20001
    )
    work = Path(node.site.work_directory)
    work.mkdir()
    (node.folder / "elsewhere").write_text("a key of somebody's")
    (node.folder / "elsewhere").chmod(0o600)
    place = work / f"{NAME}.tunnel"
    place.symlink_to(node.folder / "elsewhere")
    assert node.end(node.start()) == 78
    assert "only its owner can read" in node.log()
    assert (node.folder / "elsewhere").exists()
