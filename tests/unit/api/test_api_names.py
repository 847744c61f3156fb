"""Names of objects and of jobs in SLURM."""

import re

import hypothesis.strategies as st
from hypothesis import given

from isthmus.api import names
from isthmus.api.names import parse_slurm_job_name, slurm_job_name
from isthmus.routing.members import PORT_NAME, workers

label = st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
token = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=6, max_size=6)


@given(
    name=label, namespace=label, uid=st.uuids().map(str), slot=st.integers(0, 511), attempt=token
)
def test_a_job_name_is_taken_apart_again(name, namespace, uid, slot, attempt):
    made = slurm_job_name(
        deployment=name,
        installation_id="inst0001",
        namespace=namespace,
        uid=uid,
        slot=slot,
        attempt=attempt,
    )
    parts = parse_slurm_job_name(made)
    assert parts is not None
    assert (parts.deployment, parts.installation_id) == (name, "inst0001")
    assert (parts.slot, parts.attempt) == (slot, attempt)
    assert parts.deployment_hash == names.deployment_hash(namespace=namespace, name=name, uid=uid)
    assert re.fullmatch(r"[a-z0-9-]{1,128}", made)


def test_another_object_of_the_same_name_has_other_jobs():
    first = names.deployment_hash(namespace="a", name="llama", uid="1")
    assert first != names.deployment_hash(namespace="a", name="llama", uid="2")
    assert first != names.deployment_hash(namespace="b", name="llama", uid="1")


def test_foreign_job_names_have_no_parts():
    ours = "x-inst0001-0123456789-0-x7k2qp"
    assert parse_slurm_job_name(ours) is not None
    odd = (f"a\n{ours}", f"{ours}\n", f"$(id){ours}", f" {ours}", ours.replace("-0-", "-0000-"))
    for foreign in ("", "bash", "a-b-c-d-e", "x-inst0001-0123456789-zero-x7k2qp", *odd):
        assert parse_slurm_job_name(foreign) is None


def test_composed_names_are_valid_object_names():
    longest = {"deployment": "a" * 40, "pool": "b" * 15}
    revision = names.revision_object_name(**longest, revision="c" * 10)
    job = names.slurm_job_object_name(**longest, slot=511, attempt="x7k2qp")
    assert revision == f"{'a' * 40}-{'b' * 15}-{'c' * 10}"
    assert job == f"{'a' * 40}-{'b' * 15}-511-x7k2qp"
    assert max(len(revision), len(job)) <= 253


def _dns_subdomain(name, *, most):
    return len(name) <= most and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) is not None


def test_b3_every_derived_name_fits_for_all_lengths_that_the_schema_allows():
    """From about 35 characters of name and pool on, a pod's name lost the end of its Deployment's.

    By that the front finds which key the pod has, so it got none.
    """
    for length in range(1, names.MAX_DEPLOYMENT_NAME + 1):
        deployment = ("ab-" * 20)[: length - 1] + "c"
        for service in (
            names.membership_service(deployment, managed=True),
            names.membership_service(deployment, managed=False),
        ):
            assert _dns_subdomain(service, most=63)
        assert len(names.front_name(deployment)) <= names.MAX_WORKLOAD_NAME
        assert _dns_subdomain(names.front_name(deployment), most=63)
        for secret in (names.api_key_secret(deployment), names.worker_keys_secret(deployment)):
            assert _dns_subdomain(secret, most=253)
        for width in range(1, names.MAX_POOL_NAME + 1):
            pool = ("x-y" * 5)[: width - 1] + "z"
            parts = {"deployment": deployment, "pool": pool}
            workload = names.workload_name(**parts, revision="abcdefghij")
            assert _dns_subdomain(workload, most=names.MAX_WORKLOAD_NAME)
            assert workload.endswith("-abcdefghij")
            for template_hash in ("5d8f7b9c6d", "7c4f8"):  # as long as one may be, and a short one
                pod = f"{workload}-{template_hash}-"[:58] + "x7k2q"
                target = {"targetRef": {"kind": "Pod", "name": pod}, "addresses": ["10.0.0.1"]}
                ports = [{"name": PORT_NAME, "port": 8000}]
                slices = {"addressType": "IPv4", "endpoints": [target], "ports": ports}
                assert [one.workload for one in workers([slices])] == [workload]
            job = names.slurm_job_object_name(**parts, slot=999, attempt="x7k2qp")
            assert _dns_subdomain(job, most=253)
            assert _dns_subdomain(names.tunnel_slice_name(slurm_job=job, host="h" * 63), most=253)
            assert _dns_subdomain(names.revision_object_name(**parts, revision="c" * 16), most=253)


def test_b3_two_revisions_never_have_one_workload_name():
    long = {"deployment": "a" * 40, "pool": "b" * 15}
    first = names.workload_name(**long, revision="abcdefghij")
    assert first != names.workload_name(**long, revision="abcdefghik")


def test_identity_is_a_name_that_users_cannot_take():
    assert names.identity_model_name("x7k2qp").startswith(names.IDENTITY_MODEL_PREFIX)
