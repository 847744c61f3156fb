"""A kubeconfig as the sidecar's access to the API server, for a sidecar outside of the cluster."""

import ssl

from isthmus.apiserver.connection import Connection
from isthmus.front.apiserver import Access


async def kubeconfig_access(kubeconfig: str | None, context: str | None) -> Access:
    """Read server, certificates and token.

    Raises:
        SettingsError: there is none, or it cannot be read.
    """
    found = await Connection(kubeconfig=kubeconfig, context=context).load()
    header = await found.get_api_key_with_prefix("BearerToken")
    token = (header or "").rpartition(" ")[2]
    verify = ssl.create_default_context(cafile=found.ssl_ca_cert or None)
    if not found.verify_ssl:
        verify.check_hostname, verify.verify_mode = False, ssl.CERT_NONE
    if found.cert_file:
        verify.load_cert_chain(found.cert_file, found.key_file)
    return Access(url=str(found.host), token=lambda: token, verify=verify)
