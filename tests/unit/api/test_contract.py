"""What components tell one another does not change by the way: the words, as recorded."""

from isthmus.api import contract, names
from isthmus.front.policy import ENVIRONMENT, MEMORY_ENVIRONMENT
from isthmus.routing.members import PORT_NAME
from isthmus.routing.slices import LABEL_SERVICE_NAME, LABEL_SLICE_MANAGED_BY
from isthmus.tunnels.heartbeat import lease_name

RECORDED = {
    1: (
        "EndpointSlice: kubernetes.io/service-name",
        "EndpointSlice: endpointslice.kubernetes.io/managed-by",
        "EndpointSlice: app.kubernetes.io/managed-by",
        "EndpointSlice: isthmus.dev/modeldeployment",
        "EndpointSlice: isthmus.dev/key",
        "EndpointSlice: isthmus.dev/tunnel-host",
        "EndpointSlice: isthmus.dev/tunnel",
        "EndpointSlice: isthmus.dev/tunnel-message",
        "EndpointSlice: isthmus.dev/tunnel-target",
        "EndpointSlice: port http",
        "EndpointSlice: ownerReferences kind SlurmJob",
        "EndpointSlice: endpoints conditions ready",
        "Secret NAME-worker-keys: data.DIGEST",
        "Secret NAME-worker-keys: isthmus.dev/deployment-keys",
        "SlurmJob: spec.clusterRef",
        "SlurmJob: spec.deployment",
        "SlurmJob: spec.pool",
        "SlurmJob: spec.slot",
        "SlurmJob: spec.attempt",
        "SlurmJob: spec.revision",
        "SlurmJob: spec.jobName",
        "SlurmJob: spec.workDirectory",
        "SlurmJob: status.forward.mode",
        "SlurmJob: status.forward.port",
        "SlurmJob: status.forward.publicKey",
        "SlurmJob: status.forward.inTraffic",
        "SlurmJob: status.forward.service",
        "SlurmJob: status.phase",
        "SlurmJob: status.host",
        "SlurmJob: status.port",
        "SlurmJob: isthmus.dev/key",
        "Pod of a front: --service",
        "Pod of a front: --keys-secret",
        "Pod of a front: --directory",
        "Pod of a front: --client-keys-secret",
        "Pod of a front: ISTHMUS_FRONT",
        "Pod of a front: ISTHMUS_FRONT_MEMORY",
        "Lease: isthmus-tunnels-*",
    ),
}


def test_no_word_is_changed_as_if_it_were_one_components_own() -> None:
    """A new word is added here; one that is changed or taken away asks for a new version.

    So does a new field of SlurmJob.spec: supervisors of version 1 set aside what has one that they
    do not know (`test_a_supervisor_of_before_sets_aside_what_it_does_not_know`).
    """
    words = tuple(f"{item.kind}: {item.word}" for item in contract.ITEMS)
    assert words == RECORDED[contract.VERSION]


def test_the_words_are_those_that_are_written() -> None:
    words = {item.word for item in contract.ITEMS}
    assert {LABEL_SERVICE_NAME, LABEL_SLICE_MANAGED_BY, f"port {PORT_NAME}"} <= words
    assert {ENVIRONMENT, MEMORY_ENVIRONMENT} <= words
    assert lease_name("*") in words
    assert (names.TUNNEL_UP, names.TUNNEL_DOWN) == ("up", "down")


def test_each_word_crosses_from_one_component_to_another() -> None:
    """Or, of the Leases, to another instance, which may be of another release."""
    for item in contract.ITEMS:
        assert item.writers, item
        assert item.readers, item
        alone = len({*item.writers, *item.readers}) == 1
        assert alone is (item.kind == "Lease"), item
