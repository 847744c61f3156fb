"""Names of objects and of jobs in SLURM."""

import re

import hypothesis.strategies as st
from hypothesis import given

from isthmus.api import names
from isthmus.api.names import parse_slurm_job_name, slurm_job_name

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


def test_identity_is_a_name_that_users_cannot_take():
    assert names.identity_model_name("x7k2qp").startswith(names.IDENTITY_MODEL_PREFIX)
