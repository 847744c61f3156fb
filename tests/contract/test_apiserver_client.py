"""The client against a real kube-apiserver: every outcome is the exception its callers act on."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from kubernetes.aio.client import Configuration

from isthmus.apiserver import answers
from isthmus.apiserver.client import KubernetesApiServer
from isthmus.apiserver.gate import GatedApiServer
from isthmus.apiserver.objects import (
    Object,
    deletion_timestamp,
    dig,
    finalizers,
    generation,
    metadata,
    name,
    resource_version,
    uid,
)
from isthmus.apiserver.resources import (
    DEPLOYMENTS,
    PODS,
    SERVICES,
    SLURM_JOBS,
    WATCHED,
    Resource,
)
from isthmus.apiserver.store import Store
from isthmus.errors import (
    ApiAlreadyExistsError,
    ApiConflictError,
    ApiForbiddenError,
    ApiInvalidError,
    ApiNotFoundError,
    ApiUnavailableError,
    ApiUnclearError,
    NotLeaderError,
)
from tests.bareapi import CONFIG_MAPS, connect, connection, new_namespace


@pytest.fixture
async def api() -> AsyncIterator[KubernetesApiServer]:
    client = await connect()
    yield client
    await client.close()


@pytest.fixture
async def namespace(api: KubernetesApiServer) -> str:
    return await new_namespace(api)


SLURM_JOB_SPEC: Object = {
    "clusterRef": {"name": "hpc", "namespace": "isthmus-system"},
    "deployment": "llama",
    "pool": "hpc",
    "slot": 0,
    "attempt": "x7k2qp",
    "revision": "0123456789",
    "jobName": "llama-isthmus0-0123456789-0-x7k2qp",
}


def config_map(namespace: str, name: str = "a", **data: str) -> dict[str, object]:
    return {"metadata": {"namespace": namespace, "name": name}, "data": data}


def service(namespace: str, **spec: object) -> dict[str, object]:
    return {
        "metadata": {"namespace": namespace, "name": "front"},
        "spec": {"ports": [{"port": 80}]} | spec,
    }


async def test_object_is_made_read_changed_and_deleted(
    api: KubernetesApiServer, namespace: str
) -> None:
    assert await api.get(CONFIG_MAPS, namespace=namespace, name="a") is None
    made = await api.create(CONFIG_MAPS, config_map(namespace, key="one"))
    assert dig(made, "kind") == "ConfigMap"
    read = await api.get(CONFIG_MAPS, namespace=namespace, name="a")
    assert read == made
    patched = await api.patch(
        CONFIG_MAPS, namespace=namespace, name="a", patch={"data": {"key": None, "new": "two"}}
    )
    assert patched["data"] == {"new": "two"}
    assert await api.delete(CONFIG_MAPS, namespace=namespace, name="a", uid=uid(made)) is None
    assert await api.get(CONFIG_MAPS, namespace=namespace, name="a") is None


async def test_second_create_says_that_it_exists(api: KubernetesApiServer, namespace: str) -> None:
    await api.create(CONFIG_MAPS, config_map(namespace))
    with pytest.raises(ApiAlreadyExistsError) as caught:
        await api.create(CONFIG_MAPS, config_map(namespace))
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")
    assert f"create configmaps {namespace}/a" in str(caught.value)


async def test_patch_with_an_old_version_or_uid_is_a_conflict(
    api: KubernetesApiServer, namespace: str
) -> None:
    made = await api.create(CONFIG_MAPS, config_map(namespace))
    version = metadata(made)["resourceVersion"]
    await api.patch(CONFIG_MAPS, namespace=namespace, name="a", patch={"data": {"n": "1"}})
    for precondition in ({"resourceVersion": version}, {"uid": "somebody-else"}):
        with pytest.raises(ApiConflictError):
            await api.patch(
                CONFIG_MAPS,
                namespace=namespace,
                name="a",
                patch={"metadata": precondition, "data": {"n": "2"}},
            )
    read = await api.get(CONFIG_MAPS, namespace=namespace, name="a")
    assert dig(read, "data", "n") == "1"


async def test_delete_with_another_uid_deletes_nothing(
    api: KubernetesApiServer, namespace: str
) -> None:
    await api.create(CONFIG_MAPS, config_map(namespace))
    with pytest.raises(ApiConflictError):
        await api.delete(CONFIG_MAPS, namespace=namespace, name="a", uid="somebody-else")
    assert await api.get(CONFIG_MAPS, namespace=namespace, name="a") is not None


async def test_absent_object_cannot_be_patched_or_deleted(
    api: KubernetesApiServer, namespace: str
) -> None:
    with pytest.raises(ApiNotFoundError):
        await api.patch(CONFIG_MAPS, namespace=namespace, name="a", patch={"data": {}})
    with pytest.raises(ApiNotFoundError):
        await api.delete(CONFIG_MAPS, namespace=namespace, name="a", uid="x")


async def test_missing_kind_is_not_taken_for_a_missing_object(
    api: KubernetesApiServer, namespace: str
) -> None:
    absent = Resource("isthmus.dev", "v1alpha1", "modelbenchmarks", "ModelBenchmark")
    with pytest.raises(ApiNotFoundError):
        await api.get(absent, namespace=namespace, name="a")
    with pytest.raises(ApiNotFoundError):
        await api.list(absent)


async def test_delete_tells_whether_the_object_still_exists(
    api: KubernetesApiServer, namespace: str
) -> None:
    held = config_map(namespace)
    held["metadata"] = {"namespace": namespace, "name": "a", "finalizers": ["isthmus.dev/test"]}
    made = await api.create(CONFIG_MAPS, held)
    left = await api.delete(CONFIG_MAPS, namespace=namespace, name="a", uid=uid(made))
    assert left is not None
    assert deletion_timestamp(left)
    assert finalizers(left) == ("isthmus.dev/test",)
    await api.patch(
        CONFIG_MAPS, namespace=namespace, name="a", patch={"metadata": {"finalizers": None}}
    )
    assert await api.get(CONFIG_MAPS, namespace=namespace, name="a") is None
    # A Service answers with itself although it is gone.
    front = await api.create(SERVICES, service(namespace))
    assert await api.delete(SERVICES, namespace=namespace, name="front", uid=uid(front)) is None
    assert await api.get(SERVICES, namespace=namespace, name="front") is None


async def test_apply_owns_its_fields_and_takes_them_over(
    api: KubernetesApiServer, namespace: str
) -> None:
    await api.apply(CONFIG_MAPS, config_map(namespace, ours="1", both="1"))
    await api.patch(
        CONFIG_MAPS, namespace=namespace, name="a", patch={"data": {"theirs": "1", "both": "2"}}
    )
    applied = await api.apply(CONFIG_MAPS, config_map(namespace, both="3"))
    assert applied["data"] == {"theirs": "1", "both": "3"}, "what is left out of an apply goes"
    again = await api.apply(CONFIG_MAPS, config_map(namespace, both="3"))
    assert resource_version(again) == resource_version(applied), "an equal apply changes nothing"


async def test_dry_run_finds_mistakes_and_writes_nothing(
    api: KubernetesApiServer, namespace: str
) -> None:
    await api.apply(SERVICES, service(namespace), dry_run=True)
    assert await api.get(SERVICES, namespace=namespace, name="front") is None
    with pytest.raises(ApiInvalidError) as caught:
        await api.apply(SERVICES, service(namespace, type="Nonsense"), dry_run=True)
    assert caught.value.status == 422
    assert "Nonsense" in str(caught.value)


async def test_misspelt_field_is_refused_instead_of_dropped(
    api: KubernetesApiServer, namespace: str
) -> None:
    with pytest.raises(ApiInvalidError, match="selectr"):
        await api.apply(SERVICES, service(namespace, selectr={}))
    with pytest.raises(ApiInvalidError, match="selectr"):
        await api.create(SERVICES, service(namespace, selectr={}))


async def test_status_is_patched_apart_from_the_spec(
    api: KubernetesApiServer, namespace: str
) -> None:
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
    }}  # fmt: skip
    made = await api.create(
        DEPLOYMENTS, {"metadata": {"namespace": namespace, "name": "d"}, "spec": spec}
    )
    patched = await api.patch(
        DEPLOYMENTS,
        namespace=namespace,
        name="d",
        subresource="status",
        patch={
            "metadata": {"resourceVersion": metadata(made)["resourceVersion"]},
            "spec": {"replicas": 5},
            "status": {"observedGeneration": 1},
        },
    )
    assert dig(patched, "status", "observedGeneration") == 1
    assert dig(patched, "spec", "replicas") == 1
    assert generation(patched) == 1


async def test_list_goes_through_all_pages(api: KubernetesApiServer, namespace: str) -> None:
    labels = {"isthmus.dev/test": namespace}

    async def make(number: int) -> None:
        obj = {"metadata": {"namespace": namespace, "name": f"c{number:04}", "labels": labels}}
        await api.create(CONFIG_MAPS, obj)

    for start in range(0, 1100, 50):
        await asyncio.gather(*(make(number) for number in range(start, start + 50)))
    selector = f"isthmus.dev/test={namespace}"
    found = await api.list(CONFIG_MAPS, label_selector=selector)
    assert [name(item) for item in found.items] == [f"c{number:04}" for number in range(1100)]
    assert {item["kind"] for item in found.items} == {"ConfigMap"}
    newest = max(resource_version(item) or 0 for item in found.items)
    assert found.resource_version >= newest


async def test_list_of_namespaces_holds_only_theirs(api: KubernetesApiServer) -> None:
    one, two, three = [await new_namespace(api) for _ in range(3)]
    for each in (one, two, three):
        await api.create(CONFIG_MAPS, config_map(each, each))
    found = await api.list(CONFIG_MAPS, namespaces=[one, three])
    assert [name(item) for item in found.items] == [one, three]
    everywhere = await api.list(CONFIG_MAPS)
    assert {one, two, three} <= {name(item) for item in everywhere.items}


async def test_everything_watched_can_be_listed(api: KubernetesApiServer) -> None:
    for resource, selector in WATCHED:
        assert (await api.list(resource, label_selector=selector)).resource_version > 0


async def test_wrong_token_is_forbidden(namespace: str) -> None:
    configuration = await connection().load()
    configuration.api_key["BearerToken"] = "Bearer wrong"
    client = KubernetesApiServer(configuration, timeout=5)
    with pytest.raises(ApiForbiddenError):
        await client.get(PODS, namespace=namespace, name="a")
    await client.close()


async def test_expired_token_is_read_again(api: KubernetesApiServer, namespace: str) -> None:
    """A projected token rotates on disk; the first 401 must not be the end."""
    client = await connect()
    client._configuration.api_key["BearerToken"] = "Bearer expired"
    await client.create(CONFIG_MAPS, config_map(namespace))
    await client.close()
    assert await api.get(CONFIG_MAPS, namespace=namespace, name="a") is not None


# --- servers that fail


@asynccontextmanager
async def broken_server(
    behaviour: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    *,
    timeout: float = 0.5,
) -> AsyncIterator[KubernetesApiServer]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behaviour(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = client_of(f"http://127.0.0.1:{port}", timeout=timeout)
    try:
        yield client
    finally:
        await client.close()
        server.close()


def client_of(host: str, *, timeout: float) -> KubernetesApiServer:
    configuration = Configuration()
    configuration.host = host
    return KubernetesApiServer(configuration, timeout=timeout)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)


def answering(status: int, body: object) -> Callable[..., Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        text = json.dumps(body)
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        writer.write((head + text).encode())
        await writer.drain()

    return serve


async def stalling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The answer begins, and its end never comes: the write was committed."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b'HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n{"kind"')
    await writer.drain()
    await reader.read(-1)


@pytest.mark.parametrize("behaviour", [silent, hanging_up, stalling])
async def test_write_without_an_answer_is_unclear_and_a_read_is_not(
    behaviour: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> None:
    obj = config_map("n")
    async with broken_server(behaviour) as client:
        writes: list[Awaitable[object]] = [
            client.create(CONFIG_MAPS, obj),
            client.apply(CONFIG_MAPS, obj),
            client.patch(CONFIG_MAPS, namespace="n", name="a", patch={}),
            client.delete(CONFIG_MAPS, namespace="n", name="a", uid="x"),
        ]
        for write in writes:
            with pytest.raises(ApiUnclearError, match="may have been committed"):
                await write
        reads: list[Awaitable[object]] = [
            client.get(CONFIG_MAPS, namespace="n", name="a"),
            client.list(CONFIG_MAPS),
            client.apply(CONFIG_MAPS, obj, dry_run=True),
        ]
        for read in reads:
            with pytest.raises(ApiUnavailableError) as caught:
                await read
            assert not isinstance(caught.value, ApiUnclearError)


async def test_write_that_was_never_sent_is_not_unclear() -> None:
    client = client_of("http://127.0.0.1:1", timeout=2)
    with pytest.raises(ApiUnavailableError) as caught:
        await client.create(CONFIG_MAPS, config_map("n"))
    await client.close()
    assert not isinstance(caught.value, ApiUnclearError)


@pytest.mark.parametrize(
    ("status", "unclear"), [(500, True), (502, True), (504, True), (503, False), (429, False)]
)
async def test_failing_server_leaves_a_write_unclear_unless_it_refused(
    status: int, unclear: bool
) -> None:
    async with broken_server(answering(status, {"kind": "Status", "message": "no"})) as client:
        with pytest.raises(ApiUnavailableError) as caught:
            await client.create(CONFIG_MAPS, config_map("n"))
        assert isinstance(caught.value, ApiUnclearError) is unclear
        with pytest.raises(ApiUnavailableError) as caught:
            await client.get(CONFIG_MAPS, namespace="n", name="a")
        assert not isinstance(caught.value, ApiUnclearError)


async def test_write_is_not_repeated_by_the_transport() -> None:
    """A repeated create would answer "exists already" for the first one's success."""
    seen = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        await reader.readuntil(b"\r\n\r\n")
        seen += 1

    async with broken_server(count) as client:
        with pytest.raises(ApiUnclearError):
            await client.create(CONFIG_MAPS, config_map("n"))
        with pytest.raises(ApiUnclearError):
            await client.patch(CONFIG_MAPS, namespace="n", name="a", patch={})
    assert seen == 2


async def test_list_starts_again_when_its_continue_token_expires() -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b" ")[1])
        body: object = {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {}}] * 2}
        status = 200
        if b"continue" in head:
            status, body = 410, {"kind": "Status", "reason": "Expired", "message": "too old"}
        elif b"limit" in head:
            body = {"metadata": {"resourceVersion": "5", "continue": "t"}, "items": [{}]}
        text = json.dumps(body)
        answer = f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        writer.write((answer + text).encode())
        await writer.drain()

    async with broken_server(serve) as client:
        found = await client.list(CONFIG_MAPS)
    assert (len(found.items), found.resource_version) == (2, 7), "nothing of the first attempts"
    assert b"limit" not in asked[-1]


# --- the gate


@dataclasses.dataclass
class Switch:
    leading: bool = True

    def check(self) -> None:
        if not self.leading:
            raise NotLeaderError("not the leader")


async def test_nothing_is_written_without_the_lease(
    api: KubernetesApiServer, namespace: str
) -> None:
    gate = Switch()
    gated = GatedApiServer(api, gate=gate, observer=Store(watched=[]))
    made = await gated.create(CONFIG_MAPS, config_map(namespace, key="one"))
    gate.leading = False
    writes: list[Awaitable[object]] = [
        gated.create(CONFIG_MAPS, config_map(namespace, "b")),
        gated.apply(CONFIG_MAPS, config_map(namespace, key="two")),
        gated.patch(CONFIG_MAPS, namespace=namespace, name="a", patch={"data": {"key": "3"}}),
        gated.delete(CONFIG_MAPS, namespace=namespace, name="a", uid=uid(made)),
    ]
    for write in writes:
        with pytest.raises(NotLeaderError):
            await write
    assert (await api.list(CONFIG_MAPS, namespaces=[namespace])).items == (made,)
    assert await gated.get(CONFIG_MAPS, namespace=namespace, name="a") == made


async def test_own_writes_can_be_read_from_the_store_at_once(
    api: KubernetesApiServer, namespace: str
) -> None:
    store = Store(watched=[SLURM_JOBS])
    gated = GatedApiServer(api, gate=Switch(), observer=store)

    def stored() -> Object | None:
        return store.get(SLURM_JOBS, namespace, "j")

    job = {
        "metadata": {"namespace": namespace, "name": "j", "finalizers": ["isthmus.dev/slurm-job"]}
    } | {"spec": SLURM_JOB_SPEC}
    await gated.apply(SLURM_JOBS, job, dry_run=True)
    assert stored() is None, "a dry run is no write"
    made = await gated.create(SLURM_JOBS, job)
    assert uid(stored() or {}) == uid(made)
    patch = {"status": {"phase": "Pending"}}
    await gated.patch(SLURM_JOBS, namespace=namespace, name="j", patch=patch, subresource="status")
    assert dig(stored(), "status", "phase") == "Pending"
    await gated.delete(SLURM_JOBS, namespace=namespace, name="j", uid=uid(made))
    assert deletion_timestamp(stored() or {})
    await gated.patch(
        SLURM_JOBS, namespace=namespace, name="j", patch={"metadata": {"finalizers": []}}
    )
    assert stored() is None


async def test_object_deleted_by_somebody_else_leaves_the_store(
    api: KubernetesApiServer, namespace: str
) -> None:
    store = Store(watched=[SLURM_JOBS])
    gated = GatedApiServer(api, gate=Switch(), observer=store)
    made = await gated.create(CONFIG_MAPS, config_map(namespace))
    await api.delete(CONFIG_MAPS, namespace=namespace, name="a", uid=uid(made))
    with pytest.raises(ApiNotFoundError):
        await gated.delete(CONFIG_MAPS, namespace=namespace, name="a", uid=uid(made))
    assert store.get(CONFIG_MAPS, namespace, "a") is None


def test_conflict_and_existence_are_told_apart_by_reason() -> None:
    def kind(reason: str) -> type[Exception]:
        body = json.dumps({"reason": reason, "message": "m"}).encode()
        return type(answers.error_of(status=409, body=body, doing="d", writes=True))

    assert kind("AlreadyExists") is ApiAlreadyExistsError
    assert kind("Conflict") is ApiConflictError
