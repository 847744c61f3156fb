"""From a SlurmCluster to how it is reached, and what its status says of that."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock

import pytest

from isthmus.api.conditions import Reason
from isthmus.api.slurmcluster import SlurmCluster, SlurmClusterStatus
from isthmus.apiserver.key import Key
from isthmus.apiserver.resources import SLURM_CLUSTERS, SLURM_JOBS, Resource
from isthmus.apiserver.secrets import SecretRef
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.login import ClusterAccess, ClusterHandle
from isthmus.errors import ApiUnavailableError, SecretMissingError, SshError
from isthmus.settings import Settings
from isthmus.slurmcluster.plan import SlurmClusterObservation, slurm_cluster_status
from isthmus.slurmcluster.reconciler import SlurmClusterReconciler, cluster_access
from isthmus.slurmcluster.running import Clusters
from isthmus.slurmcluster.state import ClusterStates
from isthmus.ssh.credentials import SecretCredentials
from tests.simulation.apiserver import ApiSimulator, Json
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


class Passes:
    """The reconciler of SlurmClusters over one object; nothing of SLURM runs."""

    def __init__(self, *, namespace: str, login: Json, **settings: Any) -> None:
        self.server, self.clients = ApiSimulator(clock=lambda: 0.0), 0
        self.store = Store(watched=[SLURM_CLUSTERS, SLURM_JOBS])
        self.states = ClusterStates()
        self.clusters = Clusters(
            states=self.states,
            reach=self._reach,
            on_change=lambda *_: None,
            on_death=lambda error: None,
        )
        nothing: Any = None
        api: Any = self
        self.reconciler = SlurmClusterReconciler(
            store=self.store,
            api=api,
            gate=nothing,
            clusters=self.clusters,
            settings=Settings(**settings),
            clock=lambda: 0.0,
            events=nothing,
        )
        obj = changed(GOOD["SlurmCluster"], {"spec.login": login, "metadata.namespace": namespace})
        made = self.server.create(SLURM_CLUSTERS, obj, by="user")
        self.store.put(SLURM_CLUSTERS, made)
        self.key = Key("SlurmCluster", namespace, made["metadata"]["name"])

    def _reach(self, access: ClusterAccess) -> Any:
        self.clients += 1
        there = AsyncMock()
        return ClusterHandle(there, there, warning=lambda: "", close=there.close)

    async def patch(self, resource: Resource, *, subresource: str = "", **rest: Any) -> Json:
        where = rest["namespace"], rest["name"]
        made = self.server.patch(
            resource, *where, patch=rest["patch"], subresource=subresource, by="op"
        )
        self.store.on_written(resource, made)
        return made

    async def condition(self) -> Json:
        await self.reconciler.reconcile(self.key)
        await self.clusters.close()
        found = self.server.get(SLURM_CLUSTERS, self.key.namespace, self.key.name)
        assert found is not None
        (condition,) = found["status"]["conditions"]
        result: Json = condition
        return result


@pytest.mark.parametrize(
    ("namespace", "login", "local_login", "words"),
    [
        ("isthmus-system", {"local": {}}, True, ""),
        ("isthmus-system", {"local": {}}, False, "setting local-login is off"),
        ("team-a", {"local": {}}, True, "for SlurmClusters in namespace isthmus-system alone"),
        ("team-a", {"local": {}}, False, "for SlurmClusters in namespace isthmus-system alone"),
        ("team-a", {"ssh": SSH_LOGIN}, False, ""),
    ],
)
async def test_h5_nobody_but_an_administrator_runs_programs_as_the_operator(
    namespace: str, login: Json, local_login: bool, words: str
) -> None:
    passes = Passes(namespace=namespace, login=login, local_login=local_login)
    condition = await passes.condition()
    assert passes.clients == (0 if words else 1)
    assert condition["status"] == "False"
    if words:
        assert condition["reason"] == Reason.CLUSTER_NOT_ALLOWED
        assert words in condition["message"]
    else:
        assert condition["reason"] == "NotObservedYet"


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
