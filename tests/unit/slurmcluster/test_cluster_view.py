"""Which unclear submissions hold back whom: those of one namespace never another one (F5, H3)."""

from __future__ import annotations

import itertools
from typing import Any

from isthmus.api.desired import ClusterReference
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.apiserver.objects import Object
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.apiserver.store import Store
from isthmus.slurmcluster.observation import ClusterObservation
from isthmus.slurmcluster.state import ClusterState, ClusterStates
from isthmus.slurmcluster.view import SHARE, ClusterView
from isthmus.slurmjob.policy.submission import held_back_by
from tests.unit.builders import LIMITS, NOW, job, snapshot

HPC = ClusterReference(namespace="isthmus-system", name="hpc")
OUTAGE = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
_VERSIONS = itertools.count(1)


def slurm_job(name: str, *, namespace: str, **status: Any) -> Object:
    return {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": f"{namespace}/{name}",
            "resourceVersion": str(next(_VERSIONS)),
        },
        "spec": {"clusterRef": {"namespace": HPC.namespace, "name": HPC.name}},
        "status": status,
    }


class Lab:
    def __init__(self) -> None:
        self.store = Store(watched=[SLURM_JOBS])
        states = ClusterStates()
        state = ClusterState(stale_after=90.0)
        states.put(HPC, state)
        state.take(snapshot(at=NOW))
        self.view = ClusterView(store=self.store, states=states, clock=lambda: NOW + 1)

    def unclear(self, count: int, *, namespace: str, words: str | None = None) -> None:
        for number in range(count):
            said = {} if words is None else {"lastAnswer": words}
            self.put(f"bad-{number}", namespace=namespace, phase="SubmitUnknown", **said)

    def put(self, name: str, *, namespace: str, **status: Any) -> None:
        self.store.put(SLURM_JOBS, slurm_job(name, namespace=namespace, **status))

    def seen_from(self, namespace: str, *, uid: str = "") -> ClusterObservation:
        cluster = SlurmCluster.model_validate(
            {
                "apiVersion": "isthmus.dev/v1alpha1",
                "kind": "SlurmCluster",
                "metadata": {"name": HPC.name, "namespace": HPC.namespace},
                "spec": {
                    "login": {"local": {}},
                    "files": {"workDirectory": "/scratch"},
                    "access": {"allowedNamespaces": {"names": [namespace]}},
                },
            }
        )
        return self.view.observe(
            cluster=cluster, reference=HPC, namespace=namespace, except_for=uid
        )

    def held(self, namespace: str) -> str:
        seen = self.seen_from(namespace)
        changes = {"unresolved": seen.unresolved, "unresolved_here": seen.unresolved_here}
        return held_back_by(job(cluster_changes=changes))


def test_f5_one_namespace_never_holds_up_another() -> None:
    for words in (None, OUTAGE, "the portal said no"):
        lab = Lab()
        lab.unclear(500, namespace="hostile", words=words)
        assert lab.held("good") == "", words
        assert "of this namespace" in lab.held("hostile")


def test_two_namespaces_without_an_answer_are_an_outage() -> None:
    lab = Lab()
    lab.unclear(SHARE, namespace="team-a", words=OUTAGE)
    assert lab.held("team-c") == ""
    lab.unclear(SHARE, namespace="team-b")
    assert "of several namespaces" in lab.held("team-c")
    assert LIMITS.max_unresolved == 2 * SHARE


def test_h3_words_that_speak_of_no_outage_count_for_their_own_namespace_alone() -> None:
    lab = Lab()
    for number in range(4):
        lab.unclear(16, namespace=f"hostile-{number}", words="the portal said no")
    assert lab.seen_from("good").unresolved == 0
    assert lab.held("good") == ""
    assert lab.held("hostile-1")


def test_what_is_under_way_counts_whatever_was_said_before() -> None:
    lab = Lab()
    lab.put("a", namespace="team-a", phase="Submitting", lastAnswer="the portal said no")
    assert lab.seen_from("team-b").unresolved == 1


def test_the_account_is_right_whatever_becomes_of_an_attempt() -> None:
    lab = Lab()
    for phase in ("Waiting", "Submitting", "SubmitUnknown", "SubmitUnknown", "Pending"):
        lab.put("a", namespace="team-a", phase=phase)
        count = int(phase.startswith("Submit"))
        seen = lab.seen_from("team-a")
        assert (seen.unresolved, seen.unresolved_here) == (count, count), phase
    lab.put("a", namespace="team-a", phase="SubmitUnknown")
    mine = lab.seen_from("team-a", uid="team-a/a")
    assert (mine.unresolved, mine.unresolved_here) == (0, 0), "an attempt does not wait for itself"
    lab.put("a", namespace="team-a", phase="SubmitUnknown", lastAnswer="the portal said no")
    seen = lab.seen_from("team-a")
    assert (seen.unresolved, seen.unresolved_here) == (0, 1)
