"""The demonstration on a cluster of the user's own: only when asked for by name, and confirmed.

Nothing is started on this machine: the chart is installed with the values of the user, who has the
images in a registry. What it installs stays; it says how to remove it.
"""

import os
import shutil
from pathlib import Path

import yaml

from playground import build
from playground.commands import run
from playground.config import default_cache
from playground.demo import sample_name, show_tables, wait_until_ready
from playground.errors import PlaygroundError
from playground.operator_process import NAMESPACE
from playground.progress import Progress
from playground.python_environment import REPOSITORY
from playground.release import CHART, RELEASE, WAIT


def own_cluster(*, sample: Path, values: Path | None, assume_yes: bool) -> None:
    """Install the chart and apply a sample in the cluster of the current kube context.

    Args:
        sample: the file with the ModelDeployment.
        values: values of the chart: images and the installation id.
        assume_yes: do not ask.

    Raises:
        PlaygroundError: there is no kubectl, context, sample or file of values, helm failed, or the
            user said no.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise PlaygroundError("CLUSTER=own needs kubectl on PATH")
    if not sample.exists():
        raise PlaygroundError(f"{sample} is missing: name a ModelDeployment with SAMPLE=FILE")
    if values is None or not values.exists():
        raise PlaygroundError(
            "CLUSTER=own needs VALUES=FILE with the values of the chart: your images and an "
            f"installationId (see {_shown(CHART)}/README.md)"
        )

    def call(*argv: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        return run([kubectl, *argv], stdin=stdin, timeout=timeout, environment=os.environ).stdout

    context = call("config", "current-context").strip()
    upgrade = ["upgrade", "--install", RELEASE, str(CHART), f"--namespace={NAMESPACE}"]
    upgrade += ["--create-namespace", f"--kube-context={context}", f"--values={values.absolute()}"]
    print(
        f"This changes the cluster of the kube context {context!r}:\n"
        f"  helm {' '.join(upgrade)}\n  kubectl apply -f {_shown(sample)}\n"
        "The SlurmCluster that the sample names, and its engine images, have to be yours."
    )
    if not assume_yes and _answer() != "yes":
        raise PlaygroundError("nothing was changed")
    helm = shutil.which("helm") or build.ensure_helm(default_cache(), Progress())
    waiting = ["--wait", f"--timeout={WAIT:.0f}s"]
    print(run([helm, *upgrade, *waiting], timeout=WAIT + 30, environment=os.environ).stdout)
    print(call("apply", "--server-side", "-f", str(sample)), end="")
    documents = yaml.safe_load_all(sample.read_text(encoding="utf-8"))
    name, namespace = sample_name(documents)
    wait_until_ready(call, name=name, namespace=namespace)
    show_tables(call)
    print(
        f"\nTo remove all, first\n  kubectl delete -f {_shown(sample)}\nand when it is gone\n"
        f"  helm uninstall {RELEASE} --namespace {NAMESPACE}\n"
        "which leaves the kinds and what you have made of them."
    )


def _answer() -> str:
    try:
        return input("Go on? Write yes: ").strip()
    except EOFError:
        return ""


def _shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)
