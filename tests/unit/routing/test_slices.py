"""EndpointSlices, written and read back."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.routing.slices import members, slice_target, worker_slice

OWNER = {"name": "llama-hpc-0-x7k2qp", "uid": "uid-job"}


def ours(address: str = "10.10.0.1", port: int = 41000) -> dict[str, Any]:
    return worker_slice(
        namespace="team-a",
        deployment="llama",
        service="llama",
        owner=OWNER,
        address=address,
        port=port,
    )


def kubernetes(*endpoints: dict[str, Any]) -> dict[str, Any]:
    """A slice as the EndpointSlice controller makes it for pods."""
    return {
        "metadata": {
            "name": "llama-abcde",
            "labels": {
                "kubernetes.io/service-name": "llama",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "app.kubernetes.io/managed-by": "isthmus",
                "isthmus.dev/modeldeployment": "llama",
            },
            "ownerReferences": [{"kind": "Service", "name": "llama", "uid": "uid-service"}],
        },
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
    }


def endpoint(pod: str, *, ready: bool | None, **more: bool) -> dict[str, Any]:
    return {
        "addresses": ["10.42.0.7"],
        "conditions": {"ready": ready, **more},
        "targetRef": {"kind": "Pod", "name": pod, "namespace": "team-a"},
    }


class TestWorkerSlice:
    def test_it_joins_the_service_and_falls_with_its_job(self) -> None:
        made = ours()
        assert made["metadata"]["name"] == OWNER["name"]
        assert made["metadata"]["labels"] == {
            "kubernetes.io/service-name": "llama",
            "endpointslice.kubernetes.io/managed-by": "isthmus.dev",
            "app.kubernetes.io/managed-by": "isthmus",
            "isthmus.dev/modeldeployment": "llama",
        }
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("SlurmJob", *OWNER.values())

    def test_the_port_has_the_services_name(self) -> None:
        """Ports of a slice are matched to the Service's by name."""
        assert ours()["ports"] == [{"name": "http", "port": 41000, "protocol": "TCP"}]
        assert ours()["endpoints"] == [{"addresses": ["10.10.0.1"], "conditions": {"ready": True}}]

    @pytest.mark.parametrize(("address", "kind"), [("10.10.0.1", "IPv4"), ("fd00::7", "IPv6")])
    def test_address_family(self, address: str, kind: str) -> None:
        assert ours(address)["addressType"] == kind

    @pytest.mark.parametrize("address", ["10.10.0.1", "fd00::7"])
    def test_what_is_written_is_read(self, address: str) -> None:
        assert slice_target(ours(address, 41007)) == (address, 41007)

    @pytest.mark.parametrize(
        "changes",
        [{"endpoints": []}, {"endpoints": None}, {"ports": []}, {"ports": None}],
    )
    def test_one_that_publishes_nothing(self, changes: dict[str, Any]) -> None:
        assert slice_target({**ours(), **changes}) is None


class TestMembers:
    def test_pods_by_name_and_jobs_by_uid(self) -> None:
        found = members(
            [kubernetes(endpoint("a", ready=True), endpoint("b", ready=True)), ours()],
            service="llama",
        )
        assert found == {"a", "b", "uid-job"}

    @pytest.mark.parametrize(
        "one",
        [
            endpoint("a", ready=False),
            endpoint("a", ready=False, serving=True, terminating=True),
            endpoint("a", ready=None),
            {"addresses": ["10.42.0.7"]},
        ],
    )
    def test_only_ready_ones(self, one: dict[str, Any]) -> None:
        assert members([kubernetes(one)], service="llama") == frozenset()

    def test_the_service_that_owns_a_slice_is_no_member(self) -> None:
        assert "uid-service" not in members(
            [kubernetes(endpoint("a", ready=True))], service="llama"
        )

    def test_nothing(self) -> None:
        assert members([], service="llama") == frozenset()
        assert members([{**kubernetes(), "endpoints": None}], service="llama") == frozenset()
