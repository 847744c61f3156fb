"""`isthmus front` as a process: what is written first, what is followed, how it ends."""

import asyncio
import logging
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.front import envoy
from isthmus.front.apiserver import Access, Slices
from isthmus.front.clients import ClientKeysFollower
from isthmus.front.files import write
from isthmus.front.filters import CLIENT_KEYS_FILE, client_keys
from isthmus.front.follow import Follower
from isthmus.front.publish import Publisher
from isthmus.routing.members import Worker

_log = logging.getLogger("isthmus.front")
_API_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontOptions:
    """What `isthmus front` is told.

    Attributes:
        namespace: of the Service.
        service: whose EndpointSlices are followed.
        directory: where Envoy's files go.
        cluster: name of Envoy's cluster in the file of endpoints.
        keys_secret: Secret with the keys of the workers, "" where they have none.
        ports: where Envoy listens; None to write the file of endpoints only.
        behaviour: what Envoy is to do with requests.
        client_keys_secret: Secret with the keys of clients, "" where they need none.
    """

    namespace: str
    service: str
    directory: Path
    cluster: str = envoy.CLUSTER
    keys_secret: str = ""
    ports: envoy.Ports | None = None
    behaviour: envoy.Behaviour = field(default_factory=envoy.Behaviour)
    client_keys_secret: str = ""


async def run(options: FrontOptions, access: Access) -> None:
    """Write Envoy's files and keep them true until TERM."""
    options.directory.mkdir(parents=True, exist_ok=True)
    guarded = options.directory / CLIENT_KEYS_FILE

    def publish_clients(keys: Mapping[str, str]) -> None:
        write(guarded, envoy.text(client_keys(keys)))

    if options.client_keys_secret and not guarded.exists():
        publish_clients({})  # until the Secret has been read nobody gets in
    if options.ports is not None:
        document = envoy.bootstrap(
            directory=str(options.directory), ports=options.ports, behaviour=options.behaviour
        )
        write(options.directory / envoy.BOOTSTRAP_FILE, envoy.text(document))

    def publish(keys: Mapping[Worker, str]) -> None:
        document = envoy.endpoints(tuple(keys), keys=keys, cluster=options.cluster)
        write(options.directory / envoy.EDS_FILE, envoy.text(document))

    slices = Slices(
        access, namespace=options.namespace, service=options.service, timeout=_API_SECONDS
    )
    loop = asyncio.get_running_loop()
    publisher = Publisher(
        source=slices, secret=options.keys_secret, publish=publish, clock=loop.time
    )
    follower = Follower(slices, changed=publisher.changed)
    parts = [follower.run(), publisher.run()]
    if options.client_keys_secret:
        clients = ClientKeysFollower(
            source=slices, secret=options.client_keys_secret, publish=publish_clients
        )
        parts.append(clients.run())
    together = asyncio.gather(*parts)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, together.cancel)
    try:
        await together
    except asyncio.CancelledError:
        _log.info("Ending; the files stay as they are")
    finally:
        await slices.close()
