"""What components tell one another does not change by the way: words and forms, as recorded."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from isthmus.api import contract, front_version, keys, names
from isthmus.api.conditions import Phase
from isthmus.api.contract import FRONT_POD, ITEMS
from isthmus.api.desired import Endpoint
from isthmus.api.slurm_network import NetworkMode
from isthmus.api.slurmjob import PUBLIC_KEY, ForwardStatus, SlurmJobSpec, SlurmJobStatus
from isthmus.backends.kubernetes.front import front_deployment
from isthmus.front.policy import ENVIRONMENT, MEMORY_ENVIRONMENT
from isthmus.modeldeployment.actions import CreateSlurmJob
from isthmus.modeldeployment.execute_jobs import slurm_job_object
from isthmus.routing.members import PORT_NAME
from isthmus.routing.slices import LABEL_SERVICE_NAME, LABEL_SLICE_MANAGED_BY, worker_slice
from isthmus.routing.tunnel_slice import TunnelSlice
from isthmus.routing.tunnel_slices import Published, tunnel_slice
from isthmus.routing.worker_keys import deployments_annotation, held_keys
from isthmus.tunnels.heartbeat import lease_name
from isthmus.tunnels.settings import default_host_id
from tests.contract.two_releases import values
from tests.contract.two_releases.values import Value
from tests.unit.builders import desired, k8s_pool, slurm_pool

NAME = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
RECORDED = {
    1: (
        ("EndpointSlice: kubernetes.io/service-name", "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
        ("EndpointSlice: endpointslice.kubernetes.io/managed-by", "isthmus[.]dev"),
        ("EndpointSlice: app.kubernetes.io/managed-by", "isthmus"),
        ("EndpointSlice: isthmus.dev/modeldeployment", "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
        ("EndpointSlice: isthmus.dev/key", "[a-z2-7]{10}"),
        ("EndpointSlice: isthmus.dev/tunnel-host", "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
        ("EndpointSlice: isthmus.dev/tunnel", "up|down"),
        ("EndpointSlice: isthmus.dev/tunnel-message", ".{0,256}"),
        ("EndpointSlice: isthmus.dev/tunnel-target", "[0-9a-z.:-]+:[1-9][0-9]{0,4}"),
        ("EndpointSlice: port http", "[1-9][0-9]{0,4}"),
        ("EndpointSlice: ownerReferences kind SlurmJob", "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
        ("EndpointSlice: endpoints conditions ready", "true|false"),
        ("Secret NAME-worker-keys: data.DIGEST", "[a-z2-7]{10}: [A-Za-z0-9._~+/=-]{16,512}"),
        (
            "Secret NAME-worker-keys: isthmus.dev/deployment-keys",
            '\\{("([*]|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)":"([a-z2-7]{10})?"(,(?="))?)*\\}',
        ),
        (
            "SlurmJob: spec.clusterRef",
            rf'\{{"name": "{NAME}", "namespace": "{NAME}"\}}',
        ),
        ("SlurmJob: spec.deployment", "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
        ("SlurmJob: spec.pool", "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
        ("SlurmJob: spec.slot", "[0-9]{1,3}"),
        ("SlurmJob: spec.attempt", "[a-z0-9]{6}"),
        ("SlurmJob: spec.revision", "[a-z0-9]{1,16}"),
        (
            "SlurmJob: spec.jobName",
            "[a-z0-9]([-a-z0-9.]*[a-z0-9])?-[a-z0-9]{8}-[0-9a-f]{10}-[0-9]{1,3}-[a-z0-9]{6}",
        ),
        ("SlurmJob: spec.workDirectory", "/[^\\s]*"),
        ("SlurmJob: status.forward.mode", "Tunnel|NodeSSH|Reverse"),
        ("SlurmJob: status.forward.port", "[1-9][0-9]{0,4}"),
        ("SlurmJob: status.forward.publicKey", "ssh-ed25519 [A-Za-z0-9+/=]+"),
        ("SlurmJob: status.forward.inTraffic", "true|false"),
        ("SlurmJob: status.forward.service", "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
        (
            "SlurmJob: status.phase",
            "Waiting|Submitting|SubmitUnknown|Pending|Starting|Ready|Degraded|Draining|Terminating|Finished|Failed|Expired|Preempted|NodeFault",
        ),
        ("SlurmJob: status.host", "[0-9a-z.:-]+"),
        ("SlurmJob: status.port", "[1-9][0-9]{0,4}"),
        ("SlurmJob: isthmus.dev/key", "[a-z2-7]{10}"),
        (
            "Pod of a front: --service",
            "[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?",
        ),
        ("Pod of a front: --keys-secret", "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
        ("Pod of a front: --directory", "/[^\\s]*"),
        ("Pod of a front: --client-keys-secret", "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
        (
            "Pod of a front: ISTHMUS_FRONT",
            r'\{"administration": (true|false), "engines": \[.*\], "extraPaths": \[.*\]\}',
        ),
        ("Pod of a front: ISTHMUS_FRONT_MEMORY", "limits[.]memory of envoy"),
        ("Pod of a front: initContainerStatuses contract message", "contract [0-9]{1,6}"),
        ("Lease: isthmus-tunnels-*", "isthmus-tunnels-[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
    ),
}

FRONT_WORDS = {
    1: (
        "--service",
        "--keys-secret",
        "--directory",
        "--client-keys-secret",
        "ISTHMUS_FRONT",
        "ISTHMUS_FRONT_MEMORY",
    ),
}
"""By `front_version.VERSION`: what the operator tells a front."""


def test_no_word_or_form_is_changed_as_if_it_were_one_components_own() -> None:
    """A new word is added here; one that is changed or taken away asks for a new version.

    So does a new field of SlurmJob.spec: supervisors of version 1 set aside what has one that they
    do not know (`test_a_supervisor_of_before_sets_aside_what_it_does_not_know`).
    """
    words = tuple((f"{item.kind}: {item.word}", item.form) for item in ITEMS)
    assert words == RECORDED[contract.VERSION]


def test_a_word_that_fronts_learn_raises_the_version_that_they_say() -> None:
    """Or `FrontOutdated` would not tell of those that do not know it."""
    words = tuple(item.word for item in ITEMS if item.readers == (contract.FRONT,))
    told = tuple(word for word in words if word.startswith(("--", "ISTHMUS")))
    assert told == FRONT_WORDS[front_version.VERSION]


def test_the_words_are_those_that_are_written() -> None:
    words = {item.word for item in ITEMS}
    assert {LABEL_SERVICE_NAME, LABEL_SLICE_MANAGED_BY, f"port {PORT_NAME}"} <= words
    assert {ENVIRONMENT, MEMORY_ENVIRONMENT} <= words
    assert lease_name("*") in words
    for model, place in ((SlurmJobSpec, "spec"), (ForwardStatus, "status.forward")):
        fields = {f"{place}.{one.alias or name}" for name, one in model.model_fields.items()}
        assert fields == {word for word in words if word.startswith(f"{place}.")}


def test_each_word_crosses_from_one_component_to_another() -> None:
    """Or, of the Leases, to another instance, which may be of another release."""
    for item in ITEMS:
        assert item.writers, item
        assert item.readers, item
        alone = len({*item.writers, *item.readers}) == 1
        assert alone is (item.kind == "Lease"), item


DIGEST = keys.key_digest("a-key-of-somebody", uid="uid-llama", seed="seed")
JOB = "llama-hpc-0-abc123"


def slices() -> Iterator[Value]:
    for address in ("10.10.0.1", "fd00::1"):
        direct = worker_slice(
            namespace="team-a",
            deployment="llama",
            service="llama-workers",
            owner={"name": JOB, "uid": "uid-direct"},
            address=address,
            port=41001,
            key=DIGEST,
        )
        yield from values.of_slice(direct)
        for up in (True, False):
            tunnel = TunnelSlice(
                host=default_host_id(),
                address=address,
                port=20001,
                ready=up,
                up=up,
                message="by login1" * 100,
                target=(address, 41000),
            )
            forwarded = Published(
                namespace="team-a",
                slurm_job=JOB,
                uid="uid-forwarded",
                deployment="llama",
                service="llama-workers",
                tunnel=tunnel,
                key=DIGEST,
            )
            yield from values.of_slice(tunnel_slice(forwarded))


def slurm_jobs() -> Iterator[Value]:
    pool = slurm_pool()
    job_name = names.slurm_job_name(
        deployment="llama",
        installation_id="isthmus0",
        namespace="team-a",
        uid="uid-llama",
        slot=0,
        attempt="abc123",
    )
    made = slurm_job_object(
        desired=desired(pool),
        pool=pool,
        action=CreateSlurmJob(pool=pool.name, revision="0123456789", slot=0),
        attempt="abc123",
        job_name=job_name,
        key=DIGEST,
        work_directory="/scratch/isthmus",
    )
    yield from values.of_job(made)
    for phase in Phase:
        found = SlurmJobStatus(phase=phase, host="10.10.0.1", port=41000)
        yield from values.of_status(found.model_dump(mode="json", by_alias=True, exclude_none=True))
    for mode in set(get_args(NetworkMode)) - {"Auto", "Direct"}:
        forward = ForwardStatus(
            mode=mode,
            port=20001,
            in_traffic=True,
            service="llama-workers",
            public_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
        )
        written = SlurmJobStatus(forward=forward)
        yield from values.of_status(
            written.model_dump(mode="json", by_alias=True, exclude_none=True)
        )


def fronts() -> Iterator[Value]:
    for endpoint in (
        Endpoint(),
        Endpoint(administration=True, extra_paths=("/my/plugin",), client_keys="clients"),
    ):
        wanted = desired(k8s_pool(), slurm_pool(), endpoint=endpoint)
        made: Any = front_deployment(desired=wanted, image="front:7", drain_seconds=300)
        yield from values.of_front(made["spec"]["template"]["spec"]["initContainers"][0])
    yield FRONT_POD, "initContainerStatuses contract message", f"contract {front_version.VERSION}"


def secrets() -> Iterator[Value]:
    key = keys.attempt_key("a-key-of-somebody", job_name=JOB, seed="seed")
    stored = {"data": {DIGEST: base64.b64encode(key.encode()).decode()}}
    assert held_keys(stored).key(digest=DIGEST, workload="") == key
    yield contract.KEYS, "data.DIGEST", f"{DIGEST}: {key}"
    for pairs in ((), (("llama-k8s-0123456789", DIGEST), ("more", DIGEST))):
        for others_have_none in (True, False):
            text = deployments_annotation(pairs, others_have_none=others_have_none)
            yield contract.KEYS, names.ANNOTATION_DEPLOYMENT_KEYS, text


def written() -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    leases = [("Lease", "isthmus-tunnels-*", lease_name(default_host_id()))]
    for kind, word, value in (*slices(), *slurm_jobs(), *fronts(), *secrets(), *leases):
        found.setdefault((kind, word), set()).add(value)
    return found


def test_what_is_written_has_the_recorded_form() -> None:
    """Every word, and no label or annotation beside them: a form that changes is seen here."""
    found = written()
    assert found.keys() == {(item.kind, item.word) for item in ITEMS}
    for item in ITEMS:
        for value in found[item.kind, item.word]:
            assert re.fullmatch(item.form, value), f"{item.word}: {value}"
    (public,) = [item.form for item in ITEMS if item.word.endswith("publicKey")]
    assert f"^{public}$" == PUBLIC_KEY


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.word)
def test_a_form_says_something(item: contract.Item) -> None:
    """One that takes any text would notice no change."""
    free = names.ANNOTATION_TUNNEL_MESSAGE
    assert item.word == free or not re.fullmatch(item.form, "Something else, in {words}")
