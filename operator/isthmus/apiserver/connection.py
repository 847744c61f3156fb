"""Where the API server is and how to authenticate to it.

Apart from the client, because the watch (kopf) logs in with the same configuration and must not
have another opinion on which file, context or service account is meant.
"""

import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import Configuration
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME

from isthmus.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Connection:
    """The source of the configuration.

    An explicit kubeconfig or context comes first, then the service account of the pod, then the
    default kubeconfig ($KUBECONFIG, else ~/.kube/config).

    Attributes:
        kubeconfig: path of a kubeconfig file, None to choose as above.
        context: name of a context in it, None for its current one.
    """

    kubeconfig: str | None = None
    context: str | None = None

    async def load(self, *, environ: Mapping[str, str] | None = None) -> Configuration:
        """Read the configuration afresh, the service account's rotated token included.

        Raises:
            SettingsError: there is none, or it cannot be read.
        """
        environ = os.environ if environ is None else environ
        configuration = Configuration()
        try:
            if self._is_missing():
                raise SettingsError(f"There is no kubeconfig {self.kubeconfig}.")
            await self.load_into(configuration, environ=environ)
        except (config.ConfigException, OSError, ValueError, KeyError) as error:
            raise SettingsError(
                f"No usable configuration for the API server in {self._source(environ)}: {error}. "
                "Give --kubeconfig (ISTHMUS_KUBECONFIG) and --context (ISTHMUS_CONTEXT), "
                "or run as a pod with a service account."
            ) from error
        # Retries are the loop's. (aiohttp itself repeats a GET or DELETE once when the connection
        # breaks before an answer: harmless, for our deletes name a uid.)
        configuration.retries = None
        # With trust_env, aiohttp reads ~/.netrc and the environment in a thread before each call:
        # only where there may be a proxy. Cookies are none of an API server's.
        configuration.client_session_kwargs = {
            "trust_env": configuration.proxy is None and bool(urllib.request.getproxies()),
            "cookie_jar": aiohttp.DummyCookieJar(),
        }
        return configuration

    async def load_into(
        self, configuration: Configuration, *, environ: Mapping[str, str] | None = None
    ) -> None:
        """Read server, certificates and token into an existing configuration."""
        environ = os.environ if environ is None else environ
        if self._in_cluster(environ):
            cast(_LoadInCluster, config.load_incluster_config)(client_configuration=configuration)
            return
        await cast(_LoadKubeconfig, config.load_kube_config)(
            config_file=self.kubeconfig,
            context=self.context,
            client_configuration=configuration,
            persist_config=False,
        )

    def _is_missing(self) -> bool:
        return bool(self.kubeconfig) and not os.path.exists(str(self.kubeconfig))

    def _in_cluster(self, environ: Mapping[str, str]) -> bool:
        if self.kubeconfig or self.context or not environ.get("KUBERNETES_SERVICE_HOST"):
            return False
        return os.path.exists(SERVICE_TOKEN_FILENAME)

    def _source(self, environ: Mapping[str, str]) -> str:
        if self._in_cluster(environ):
            return "the pod's service account"
        where = self.kubeconfig or environ.get("KUBECONFIG") or "~/.kube/config"
        return f"{where} (context {self.context})" if self.context else where


class _LoadInCluster(Protocol):
    def __call__(self, *, client_configuration: Configuration) -> None: ...


class _LoadKubeconfig(Protocol):
    async def __call__(
        self,
        *,
        config_file: str | None,
        context: str | None,
        client_configuration: Configuration,
        persist_config: bool,
    ) -> object: ...
