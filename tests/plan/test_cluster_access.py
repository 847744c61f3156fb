"""From a SlurmCluster to how it is reached, and what its status says of that."""

from __future__ import annotations

import pytest

from isthmus.api.slurmcluster import SlurmCluster, SlurmClusterStatus
from isthmus.apiserver.secrets import SecretRef
from isthmus.errors import ApiUnavailableError, SecretMissingError, SshError
from isthmus.plan.slurmcluster import SlurmClusterObservation, slurm_cluster_status
from isthmus.reconcile.slurmcluster import cluster_access
from isthmus.settings import Settings
from isthmus.ssh.credentials import SecretCredentials
from tests.wrong_inputs import GOOD, SSH_LOGIN, changed

KEY = SecretRef(namespace="default", name="hpc-ssh", key="ssh-privatekey")
HOSTS = SecretRef(namespace="default", name="hpc-ssh", key="hosts")


def cluster(login: dict) -> SlurmCluster:
    return SlurmCluster.model_validate(changed(GOOD["SlurmCluster"], {"spec.login": login}))


def test_secrets_stand_beside_the_cluster() -> None:
    access = cluster_access(cluster({"ssh": SSH_LOGIN}), settings=Settings())
    assert access.ssh is not None
    assert (access.ssh.key, access.ssh.known_hosts) == (KEY, HOSTS)
    assert [str(target) for target in access.ssh.targets] == [
        "svc@login1:2222",
        "svc@login2.example.org:2222",
        "svc@[fd00::1]:2222",
    ]


def test_a_site_says_how_often_its_login_may_be_asked() -> None:
    settings = Settings(ssh_reconnect_pause=45.0)
    access = cluster_access(cluster({"ssh": SSH_LOGIN}), settings=settings)
    assert access.ssh is not None
    history = access.ssh.reconnects
    history.failed(now=0.0)
    assert history.wait(now=0.0) == 45.0
    history.failed(now=0.0, permanent=True)
    assert history.wait(now=0.0) == 450.0


def test_a_local_login_has_no_ssh() -> None:
    assert cluster_access(cluster({"local": {}}), settings=Settings()).ssh is None


class GivenSecrets:
    """Values by key; an error instead of one is raised."""

    def __init__(self) -> None:
        self.values: dict[str, bytes | Exception] = {"ssh-privatekey": b"k", "hosts": b"h"}

    async def value(self, ref: SecretRef) -> bytes:
        found = self.values[ref.key]
        if isinstance(found, Exception):
            raise found
        return found


async def test_a_missing_key_names_all_of_its_secret() -> None:
    secrets = GivenSecrets()
    secrets.values["hosts"] = SecretMissingError("no key")
    source = SecretCredentials(secrets, key=KEY, known_hosts=HOSTS)  # type: ignore[arg-type]
    with pytest.raises(SshError) as caught:
        await source.read()
    assert caught.value.reason == "SecretMissing"
    assert "key hosts is missing" in str(caught.value)
    assert "--from-file=ssh-privatekey=FILE --from-file=hosts=FILE" in str(caught.value)


async def test_an_api_server_that_is_away_changes_nothing() -> None:
    secrets = GivenSecrets()
    source = SecretCredentials(secrets, key=KEY, known_hosts=HOSTS)  # type: ignore[arg-type]
    before = await source.read()
    secrets.values["hosts"] = ApiUnavailableError("away")
    assert await source.read() == before
    fresh = SecretCredentials(secrets, key=KEY, known_hosts=HOSTS)  # type: ignore[arg-type]
    with pytest.raises(SshError) as caught:
        await fresh.read()
    assert caught.value.reason == "SshUnreachable"


@pytest.mark.parametrize(
    ("warning", "message"),
    [
        ("", "squeue and sinfo answer"),
        ("the changed Secret fails", "squeue and sinfo answer; but the changed Secret fails"),
    ],
)
def test_a_warning_stands_in_the_good_condition(warning: str, message: str) -> None:
    observed = SlurmClusterObservation(
        generation=1,
        fresh=True,
        reason="",
        message="",
        warning=warning,
        snapshot=None,
        version=None,
        our_jobs=frozenset(),
        status=SlurmClusterStatus(),
    )
    (found,) = slurm_cluster_status(observed, now=0).conditions
    assert (found.status, found.message) == ("True", message)
