"""`python -m playground prepare|up|down|status|demo`: what the Makefile calls."""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from playground import demo as demonstration
from playground import instances, preflight, slurm_releases
from playground import prepare as preparation
from playground.cluster import Config, Playground
from playground.config import DEFAULT_STATE, INSTANCES, default_cache, describe_parts, parse_parts
from playground.errors import PlaygroundError
from playground.own_cluster import own_cluster
from playground.progress import Progress, warn

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A real Kubernetes and a real SLURM cluster on this machine. "
    "Needs root, Debian 12 and Go 1.26 (or pip, to fetch it).",
    epilog="Never tried: " + "; ".join(preflight.NOT_TRIED) + ".",
)

StateOption = Annotated[
    Path | None, typer.Option("--state", envvar="STATE", help="Folder of everything it writes.")
]
InstanceOption = Annotated[
    int | None,
    typer.Option("--instance", envvar="INSTANCE", help="0 to 15: playgrounds side by side."),
]


def default_state(instance: int | None) -> Path:
    """Each instance has its own folder unless one is named."""
    suffix = f"-{instance}" if instance else ""
    return DEFAULT_STATE.with_name(DEFAULT_STATE.name + suffix)


def _config(state: Path | None, instance: int | None, **options: object) -> Config:
    values = {name: value for name, value in options.items() if value is not None}
    return Config(
        state=(state or default_state(instance)).absolute(),
        instance=instance,
        **values,  # type: ignore[arg-type]
    )


def _slurm_prefix() -> Path | None:
    """What SLURM_PREFIX says: a folder, or a release that is made if need be."""
    text = os.environ.get("SLURM_PREFIX")
    if not text:
        return None
    return slurm_releases.resolve(text, cache=default_cache(), progress=Progress())


@app.command()
def up(
    state: StateOption = None,
    instance: InstanceOption = None,
    parts: Annotated[
        str, typer.Option("--parts", envvar="PARTS", help="kubernetes, slurm, apiserver.")
    ] = "kubernetes,slurm",
    nodes: Annotated[int, typer.Option(help="Kubernetes nodes.")] = 2,
    slurm_nodes: Annotated[int, typer.Option(help="SLURM nodes.")] = 4,
    gpus: Annotated[int, typer.Option(help="Fake GPUs of each node.")] = 8,
    cpus: Annotated[
        int, typer.Option(envvar="CPUS", help="Processors that each SLURM node claims to have.")
    ] = 64,
) -> None:
    """Start what does not run."""
    config = _config(
        state,
        instance,
        parts=parse_parts(parts),
        nodes=nodes,
        slurm_nodes=slurm_nodes,
        gpus=gpus,
        cpus=cpus,
        slurm_prefix=_slurm_prefix(),
    )
    playground = Playground(config)
    playground.up()
    print(
        f"\n{describe_parts(config.parts)} of instance {playground.instance} run. To try:\n"
        f"  . {config.state}/env.sh"
    )
    if "kubernetes" in config.parts:
        print("  kubectl get nodes -o wide\n  kubectl get pods -A")
    if "slurm" in config.parts:
        print(
            f"  sinfo\n  setpriv --reuid={config.user} --regid={config.user} --init-groups "
            "srun --chdir=/tmp --gres=gpu:2 env | grep CUDA"
        )
    print(f"To stop: make down{'' if state is None else f' STATE={state}'}")


@app.command()
def prepare(
    state: StateOption = None,
    instance: InstanceOption = None,
) -> None:
    """Build and fetch everything that takes minutes, and start nothing."""
    preparation.prepare(_config(state, instance), Progress())


@app.command()
def down(state: StateOption = None, instance: InstanceOption = None) -> None:
    """End every process and remove every trace; also after a failed or killed start."""
    preflight.check_root()
    folder = (state or default_state(instance)).absolute()
    if instance is None and folder == DEFAULT_STATE:
        instance = INSTANCES[0]  # most likely, where neither folder nor claim is left to say it
    Playground(_config(state, instance)).down()


@app.command()
def status(state: StateOption = None, instance: InstanceOption = None) -> None:
    """Show which daemons run, and which instances of this machine are taken."""
    folder = (state or default_state(instance)).absolute()
    playground = Playground.load(folder)
    print(f"playground in {folder}, instance {playground.instance}")
    for name in playground.components.names():
        process = playground.components.process(name)
        print(f"  {name:32} {f'pid {process.pid}' if process else 'DOES NOT RUN'}")
    for number in INSTANCES:
        other = instances.owner(number)
        if other is not None and other != folder:
            print(f"instance {number}: {other}")


@app.command()
def demo(
    state: StateOption = None,
    instance: InstanceOption = None,
    cluster: Annotated[
        str,
        typer.Option(
            envvar="CLUSTER",
            help="`playground`, or `own` for the cluster of the current kube context.",
        ),
    ] = "playground",
    sample: Annotated[
        Path, typer.Option(envvar="SAMPLE", help="File to apply (with `own`).")
    ] = demonstration.SAMPLE,
    values: Annotated[
        Path | None, typer.Option(envvar="VALUES", help="Values of the chart (with `own`).")
    ] = None,
    yes: Annotated[bool, typer.Option(envvar="YES", help="Do not ask (with `own`).")] = False,
) -> None:
    """Start everything, deploy a model on both schedulers and talk to it."""
    if cluster == "own":
        own_cluster(sample=sample, values=values, assume_yes=yes)
    elif cluster == "playground":
        demonstration.demo(_config(state, instance, slurm_prefix=_slurm_prefix()))
    else:
        raise PlaygroundError(f"CLUSTER={cluster}: write `own`, or leave it away")


@app.command()
def slurm_prefix(
    releases: Annotated[list[str], typer.Argument(help="24.11 or newest.")],
    renew_lock: Annotated[
        bool, typer.Option("--renew-lock", help="First write what Debian's archive has today.")
    ] = False,
) -> None:
    """Make other releases of SLURM beside the machine's; prints what SLURM_PREFIX may name."""
    preflight.check_root()
    for name in releases:
        with contextlib.redirect_stdout(sys.stderr):  # the answer is for scripts
            progress = Progress()
            if renew_lock:
                slurm_releases.renew_lock(name, cache=default_cache(), progress=progress)
            found = slurm_releases.ensure(name, cache=default_cache(), progress=progress)
            lock = "as locked" if found.locked else "NOT the locked one"
            progress.say(f"SLURM {name} is {found.version}, {lock}")
        print(found.prefix)


def main() -> None:
    """Run the command line; errors of the playground are messages, not traces.

    TERM and HUP end it as INT does: what it holds for a moment is given back.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        app()
    except KeyboardInterrupt:
        warn("interrupted; `make down` takes away what was started")
        raise SystemExit(130) from None
    except PlaygroundError as error:
        warn(f"error: {error}")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
