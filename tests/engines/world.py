"""The playground in which real engines run: their files in it, an operator, both schedulers."""

import base64
import contextlib
import secrets
from collections.abc import Iterator

from playground.cluster import Config, Playground
from playground.front_image import import_front_image
from playground.operator_process import Operator
from playground.progress import Progress
from tests.engines import environment, pods
from tests.engines.rows import SITES
from tests.engines.site import KEY_SECRET, Site
from tests.real.world import World

# Faster looks and retries than at a site; what a drain waits for is as everywhere.
SETTINGS = {
    "slurm-poll-interval": "2s",
    "failure-backoff-base": "1s",
    "failure-backoff-cap": "5s",
    "retry-cap": "5s",
    "liveness-port": "0",
}


@contextlib.contextmanager
def engine_world(config: Config, progress: Progress) -> Iterator[dict[str, Site]]:
    """One engine on one scheduler by its name, in a world that is taken away at the end.

    Raises:
        PlaygroundError: a part of it could not be made.
    """
    environment.installed(config.cache, progress)
    with Playground(config, progress=progress) as playground:
        folder = playground.state / "real-engines"
        environment.place(config.cache, folder, progress)
        pods.prepare(playground, folder)
        settings = SETTINGS | {"front-image": import_front_image(playground)}
        arguments = [f"--set={name}={value}" for name, value in settings.items()]
        operator = Operator(playground, arguments=arguments, installation_id="realengs")
        world = World(playground, [operator])
        operator.start()
        try:
            setup = f'export PATH={folder}/bin:"$PATH"'
            site = {"gpuTypes": {"h100": "h100"}, "setup": setup}
            world.apply(world.cluster(site=site), _key())
            yield {name: Site(world, *name.split("-"), folder) for name in SITES}
        finally:
            operator.stop()


def _key() -> dict[str, object]:
    """The API key of the deployments on pods; those with jobs get one of their own."""
    value = base64.b64encode(secrets.token_urlsafe(32).replace("-", "_").encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": KEY_SECRET, "namespace": "default"},
        "data": {"api-key": value},
    }
