"""The demonstration on a cluster of the user's own: only when asked for by name, and confirmed.

Nothing is started but the operator, as a process of this user, for as long as this command runs.
What it installs in the cluster stays; it says how to remove it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from playground.commands import run
from playground.demo import sample_name, show_tables, wait_until_ready
from playground.errors import PlaygroundError
from playground.python_environment import REPOSITORY

STOP_TIMEOUT = 20.0


def own_cluster(*, sample: Path, assume_yes: bool) -> None:
    """Install definitions, rights and a sample, and run the operator until it is interrupted.

    Raises:
        PlaygroundError: there is no kubectl, context or sample, or the user said no.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise PlaygroundError("CLUSTER=own needs kubectl on PATH")
    if not sample.exists():
        raise PlaygroundError(f"{sample} is missing: name a ModelDeployment with SAMPLE=FILE")

    def call(*argv: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        return run([kubectl, *argv], stdin=stdin, timeout=timeout, environment=os.environ).stdout

    context = call("config", "current-context").strip()
    files = sorted((REPOSITORY / "crds").glob("*.yaml"))
    files += [*sorted((REPOSITORY / "deploy").glob("*.yaml")), sample]
    listed = "\n".join(f"  {_shown(path)}" for path in files)
    print(
        f"This changes the cluster of the kube context {context!r}. It applies, in this order:\n"
        f"{listed}\nand runs the operator here, with your rights, until you press Ctrl-C.\n"
        "The SlurmCluster that the sample names, and its engine images, have to be yours."
    )
    if not assume_yes and _answer() != "yes":
        raise PlaygroundError("nothing was changed")
    for path in files:
        print(call("apply", "--server-side", "-f", str(path)), end="")
    documents = yaml.safe_load_all(sample.read_text(encoding="utf-8"))
    name, namespace = sample_name(documents)
    with _operator(context) as operator:

        def check() -> None:
            if operator.poll() is not None:
                raise PlaygroundError(f"the operator ended with {operator.returncode}")

        wait_until_ready(call, name=name, namespace=namespace, check=check)
        show_tables(call)
        rest = " ".join(f"-f {_shown(path)}" for path in reversed(files[:-1]))
        print(
            "\nThe operator runs until you press Ctrl-C. To remove all, first, while it runs:\n"
            f"  kubectl delete -f {_shown(sample)}\nand then\n  kubectl delete {rest}"
        )
        operator.wait()


def _answer() -> str:
    try:
        return input("Go on? Write yes: ").strip()
    except EOFError:
        return ""


def _shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)


@contextmanager
def _operator(context: str) -> Iterator[subprocess.Popen[bytes]]:
    """The operator with this Python; its output goes to a file that is named."""
    kubeconfig = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "operator")}
    command = [sys.executable, "-m", "isthmus", "run", "--context", context]
    with (
        tempfile.NamedTemporaryFile(prefix="isthmus-", suffix=".log", delete=False) as log,
        subprocess.Popen(
            command,
            env=environment | {"KUBECONFIG": kubeconfig},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        print(f"the operator writes to {log.name}")
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
