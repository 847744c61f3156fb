"""Where the API server's address and token come from, and in which order."""

from pathlib import Path

import pytest
from kubernetes.aio.config import incluster_config

from isthmus.apiserver import connection as module
from isthmus.apiserver.connection import Connection
from isthmus.errors import SettingsError

CLUSTER = """
apiVersion: v1
kind: Config
clusters:
- {name: one, cluster: {server: "https://one:6443"}}
- {name: two, cluster: {server: "https://two:6443"}}
users: [{name: me, user: {token: secret-of-file}}]
contexts:
- {name: first, context: {cluster: one, user: me}}
- {name: second, context: {cluster: two, user: me}}
current-context: first
"""
POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    path = tmp_path / "kubeconfig"
    path.write_text(CLUSTER)
    return str(path)


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a service account, as a pod has it."""
    (tmp_path / "token").write_text("first-token")
    (tmp_path / "ca.crt").write_text("certificate")
    for where in (module, incluster_config):
        monkeypatch.setattr(where, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    for name, value in POD.items():
        monkeypatch.setenv(name, value)
    return tmp_path


async def test_kubeconfig_and_context_are_obeyed(kubeconfig: str) -> None:
    first = await Connection(kubeconfig=kubeconfig).load(environ={})
    assert first.host == "https://one:6443"
    assert await first.get_api_key_with_prefix("BearerToken") == "Bearer secret-of-file"
    second = await Connection(kubeconfig=kubeconfig, context="second").load(environ={})
    assert second.host == "https://two:6443"


async def test_pod_uses_its_service_account_and_its_rotated_token(pod: Path) -> None:
    source = Connection()
    loaded = await source.load()
    assert loaded.host == "https://10.96.0.1:443"
    assert await loaded.get_api_key_with_prefix("BearerToken") == "bearer first-token"
    (pod / "token").write_text("second-token")
    await source.load_into(loaded)
    assert await loaded.get_api_key_with_prefix("BearerToken") == "bearer second-token"


async def test_explicit_kubeconfig_comes_before_the_service_account(
    pod: Path, kubeconfig: str
) -> None:
    assert (await Connection(kubeconfig=kubeconfig).load()).host == "https://one:6443"


@pytest.mark.parametrize(
    ("content", "context", "said"),
    [
        (None, None, "There is no kubeconfig"),
        ("{}", None, "No usable configuration"),
        (CLUSTER, "third", "context third"),
    ],
)
async def test_unusable_configuration_is_named(
    tmp_path: Path, content: str | None, context: str | None, said: str
) -> None:
    path = tmp_path / "broken"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=said) as caught:
        await Connection(kubeconfig=str(path), context=context).load(environ={})
    assert str(path) in str(caught.value)
