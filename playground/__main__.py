"""`python -m playground prepare|up|down|status|demo`: what the Makefile calls."""

import os
from pathlib import Path
from typing import Annotated

import typer

from playground import demo as demonstration
from playground import instances, preflight
from playground import prepare as preparation
from playground.cluster import Config, Playground
from playground.config import DEFAULT_STATE, INSTANCES, describe_parts, parse_parts
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
    prefix = os.environ.get("SLURM_PREFIX")
    return Config(
        state=(state or default_state(instance)).absolute(),
        instance=instance or 0,
        slurm_prefix=Path(prefix).absolute() if prefix else None,
        **values,  # type: ignore[arg-type]
    )


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
        demonstration.demo(_config(state, instance))
    else:
        raise PlaygroundError(f"CLUSTER={cluster}: write `own`, or leave it away")


def main() -> None:
    """Run the command line; errors of the playground are messages, not traces."""
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
