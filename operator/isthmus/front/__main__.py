"""`isthmus front`, also as `python -m isthmus.front`: what it is told, and the process it starts.

The second form is the one of the sidecar: it loads a third of what the whole command line loads.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from isthmus.errors import SettingsError
from isthmus.front import envoy, memory
from isthmus.front.apiserver import Access, pod_access
from isthmus.front.policy import ENVIRONMENT, MEMORY_ENVIRONMENT, read_policy
from isthmus.front.process import FrontOptions, run
from isthmus.listening import any_address

_EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Follow the workers of one deployment and write Envoy's files until TERM."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    namespace, _, name = arguments.service.partition("/")
    if not namespace or not name:
        print(
            f"isthmus front: --service {arguments.service}: write NAMESPACE/NAME", file=sys.stderr
        )
        return _EXIT_USAGE
    options = FrontOptions(
        namespace=namespace,
        service=name,
        directory=arguments.directory.absolute(),
        cluster=arguments.cluster,
        keys_secret=arguments.keys_secret,
        ports=None
        if arguments.eds_only
        else envoy.Ports(
            address=arguments.address,
            requests=arguments.port,
            health=arguments.health_port,
            admin=arguments.admin_port,
        ),
        behaviour=_behaviour(os.environ, client_keys=bool(arguments.client_keys_secret)),
        client_keys_secret=arguments.client_keys_secret,
    )
    try:
        access = _access(arguments.kubeconfig, arguments.context)
    except SettingsError as error:
        print(f"isthmus front: {error}", file=sys.stderr)
        return _EXIT_USAGE
    asyncio.run(run(options, access))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="isthmus front", description=main.__doc__)
    add = parser.add_argument
    add("--service", required=True, metavar="NAMESPACE/NAME",
        help="Service whose EndpointSlices are followed: NAME-workers of a ModelDeployment NAME "
        "with endpoint.type Managed, else NAME")  # fmt: skip
    add("--directory", required=True, type=Path, help="folder for Envoy's files")
    add("--eds-only", action="store_true",
        help="write eds.json alone, for an Envoy with a bootstrap of its own")  # fmt: skip
    add("--keys-secret", default="", metavar="NAME",
        help="Secret with the workers' API keys, NAME-worker-keys (default: none)")  # fmt: skip
    add("--client-keys-secret", default="", metavar="NAME",
        help="Secret of which each entry is the API key of one client (default: clients need "
        "none)")  # fmt: skip
    add("--cluster", default=envoy.CLUSTER, help="name of Envoy's cluster (%(default)s)")
    add("--address", default=any_address(), help="where Envoy listens (%(default)s)")
    add("--port", type=int, default=8080, help="its port for requests (%(default)s)")
    add("--health-port", type=int, default=8081, help="of /ready, /live, /metrics (%(default)s)")
    add("--admin-port", type=int, default=9901, help="of its administration (%(default)s)")
    add("--kubeconfig", help="kubeconfig file; default: the pod's service account")
    add("--context", help="context in the kubeconfig")
    return parser


def _behaviour(environ: Mapping[str, str], *, client_keys: bool) -> envoy.Behaviour:
    given = environ.get(MEMORY_ENVIRONMENT, "")
    known = given.isascii() and given.isdigit() and len(given) < 19
    return envoy.Behaviour(
        policy=read_policy(environ.get(ENVIRONMENT, "")),
        client_keys=client_keys,
        memory=int(given) if known and int(given) > 0 else memory.DEFAULT_BYTES,
    )


def _access(kubeconfig: str | None, context: str | None) -> Access:
    if kubeconfig is None and context is None:
        return pod_access()
    # Imported here: the client of Kubernetes takes more memory than everything else in a sidecar.
    from isthmus.front.kubeconfig import kubeconfig_access

    return asyncio.run(kubeconfig_access(kubeconfig, context))


if __name__ == "__main__":
    sys.exit(main())
