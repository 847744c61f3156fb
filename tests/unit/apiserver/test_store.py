"""The store is right in the end, whatever order its three sources speak in."""

import json
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.names import LABEL_DEPLOYMENT
from isthmus.apiserver.objects import Object, ObjectList, name, resource_version
from isthmus.apiserver.resources import DEPLOYMENTS, PODS, Resource
from isthmus.apiserver.store import Store

NS = "team-a"


def obj(
    name: str, version: int, *, uid: str = "", labels: Mapping[str, str] | None = None,
    owner: str = "", namespace: str = NS, **metadata: object,
) -> Object:  # fmt: skip
    meta: dict[str, object] = {
        "namespace": namespace,
        "name": name,
        "uid": uid or f"uid-{name}",
        "resourceVersion": str(version),
        "labels": dict(labels or {}),
    }
    if owner:
        meta["ownerReferences"] = [{"uid": owner}]
    return {"metadata": meta | metadata, "spec": {"version": version}}


def listed(version: int, *items: Object) -> ObjectList:
    return ObjectList(items=items, resource_version=version)


def store() -> Store:
    return Store(watched=[PODS, DEPLOYMENTS])


def _version(item: Object | None) -> int | None:
    return None if item is None else resource_version(item)


def names(items: tuple[Object, ...]) -> list[str]:
    return [name(item) for item in items]


def version(held: Store, of: str = "a") -> int | None:
    found = held.get(PODS, NS, of)
    return None if found is None else resource_version(found)


def test_newer_version_wins_whatever_the_order() -> None:
    held = store()
    assert held.put(PODS, obj("a", 9))
    assert not held.put(PODS, obj("a", 8)), "an older event must change nothing"
    assert not held.put(PODS, obj("a", 9)), "an echo must change nothing"
    assert held.put(PODS, obj("a", 10)), "versions are numbers, not texts"
    assert version(held) == 10


def test_late_events_of_a_deleted_uid_do_not_bring_it_back() -> None:
    held = store()
    held.put(PODS, obj("a", 5))
    assert held.remove(PODS, NS, "a", "uid-a", 7)
    assert not held.put(PODS, obj("a", 6))
    assert held.get(PODS, NS, "a") is None
    assert held.put(PODS, obj("a", 8, uid="another")), "a new object of the same name is new"
    assert not held.remove(PODS, NS, "a", "uid-a", 7), "and the old one's deletion is not its own"
    assert not held.remove(PODS, NS, "a", "uid-a"), "not even by a late answer without a version"
    assert version(held) == 8


def test_deletion_by_own_write_without_a_version_is_final() -> None:
    held = store()
    held.put(PODS, obj("a", 5))
    held.on_deleted(PODS, None, namespace=NS, name="a", uid="uid-a")
    assert not held.put(PODS, obj("a", 6))
    assert held.get(PODS, NS, "a") is None


def test_deletion_that_waits_for_a_finalizer_is_kept() -> None:
    held = store()
    held.put(PODS, obj("a", 5))
    dying = obj("a", 6, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["x/y"])
    held.on_deleted(PODS, dying, namespace=NS, name="a", uid="uid-a")
    assert version(held) == 6
    # The patch that takes the last finalizer away answers with the object that it deletes.
    held.on_written(PODS, obj("a", 7, deletionTimestamp="2026-01-01T00:00:00Z"))
    assert held.get(PODS, NS, "a") is None
    assert not held.put(PODS, dying)


def test_object_that_left_the_selector_for_a_while_comes_back() -> None:
    """A watch says DELETED when a label is taken away; the uid lives on."""
    held = store()
    held.put(PODS, obj("a", 5))
    held.remove(PODS, NS, "a", "uid-a", 6)
    assert held.put(PODS, obj("a", 8))
    assert version(held) == 8


def test_relist_removes_what_it_does_not_hold_and_only_that() -> None:
    held = store()
    held.put(PODS, obj("gone", 3))
    held.put(PODS, obj("kept", 4))
    held.put(PODS, obj("newer", 12))  # created after the list was taken
    held.put(DEPLOYMENTS, obj("other", 1))
    changed = held.replace(PODS, listed(10, obj("kept", 4), obj("new", 9)))
    assert sorted(key.name for key in changed) == ["gone", "new"]
    assert names(held.list(PODS)) == ["kept", "new", "newer"]
    assert names(held.list(DEPLOYMENTS)) == ["other"]
    assert not held.put(PODS, obj("gone", 5)), "a late event from before the list"


def test_relist_of_some_namespaces_leaves_others_alone() -> None:
    held = store()
    held.put(PODS, obj("a", 3))
    held.put(PODS, obj("b", 3, namespace="team-b"))
    held.replace(PODS, listed(10), namespaces=[NS])
    assert names(held.list(PODS)) == ["b"]


def test_relist_does_not_undo_a_deletion_that_is_newer() -> None:
    held = store()
    held.put(PODS, obj("a", 3))
    held.remove(PODS, NS, "a", "uid-a", 12)
    held.replace(PODS, listed(10, obj("a", 3)))
    assert held.get(PODS, NS, "a") is None


def test_restored_api_server_replaces_what_only_seems_newer() -> None:
    held = store()
    held.replace(PODS, listed(5000, obj("a", 4000), obj("lost", 4500)))
    held.replace(PODS, listed(200, obj("a", 150)))
    assert names(held.list(PODS)) == ["a"]
    assert version(held) == 150
    assert held.put(PODS, obj("a", 210))


def test_store_is_synced_once_every_watched_resource_was_listed() -> None:
    held = store()
    held.put(PODS, obj("a", 3))
    held.replace(PODS, listed(10))
    assert not held.synced
    held.replace(DEPLOYMENTS, listed(10))
    assert held.synced


def test_objects_are_found_by_owner_and_by_deployment() -> None:
    held = store()
    label = {"isthmus.dev/modeldeployment": "llama"}
    held.put(PODS, obj("b", 1, owner="o1", labels=label))
    held.put(PODS, obj("a", 2, owner="o1", labels=label))
    held.put(PODS, obj("c", 3, owner="o2", labels=label, namespace="team-b"))
    assert names(held.owned(PODS, "o1")) == ["a", "b"]
    assert names(held.labelled(PODS, NS, "llama")) == ["a", "b"]
    held.put(PODS, obj("a", 4, owner="o2"))  # changes its owner and loses its label
    held.remove(PODS, NS, "b", "uid-b", 5)
    assert names(held.owned(PODS, "o1")) == []
    assert names(held.owned(PODS, "o2")) == ["a", "c"]
    assert names(held.labelled(PODS, NS, "llama")) == []
    assert names(held.owned(DEPLOYMENTS, "o2")) == []


def test_listeners_hear_each_change_once_with_both_states() -> None:
    held = store()
    heard: list[tuple[int | None, int | None]] = []

    def listener(resource: Resource, old: Object | None, new: Object | None) -> None:
        assert resource is PODS
        heard.append((_version(old), _version(new)))

    held.on_change(listener)
    held.put(PODS, obj("a", 1))
    held.put(PODS, obj("a", 1))
    held.put(PODS, obj("a", 2))
    held.remove(PODS, NS, "a", "uid-a", 3)
    held.remove(PODS, NS, "a", "uid-a", 3)
    assert heard == [(None, 1), (1, 2), (2, None)]


def test_managed_fields_are_dropped_and_the_given_object_is_left_alone() -> None:
    held = store()
    given_object = obj("a", 1, managedFields=[{"manager": "x"}])
    held.put(PODS, given_object)
    found = held.get(PODS, NS, "a")
    assert found is not None
    assert "managedFields" not in found["metadata"]  # type: ignore[operator]
    assert "managedFields" in given_object["metadata"]  # type: ignore[operator]


HISTORY = st.lists(st.sampled_from(["create", "modify", "delete"]), min_size=1, max_size=12)


@given(HISTORY, st.data())
def test_any_order_of_events_and_a_relist_end_in_the_truth(
    history: list[str], data: st.DataObject
) -> None:
    """Play a history, deliver its events shuffled with duplicates and losses, then list."""
    events: list[tuple[str, Object]] = []
    truth: Object | None = None
    revision, incarnation = 100, 0
    for step in history:
        revision += 1
        if step == "create" and truth is None:
            incarnation += 1
            truth = obj("a", revision, uid=f"uid-{incarnation}")
            events.append(("ADDED", truth))
        elif step == "modify" and truth is not None:
            truth = obj("a", revision, uid=f"uid-{incarnation}")
            events.append(("MODIFIED", truth))
        elif step == "delete" and truth is not None:
            events.append(("DELETED", obj("a", revision, uid=f"uid-{incarnation}")))
            truth = None
    delivered = data.draw(st.lists(st.sampled_from(events), max_size=20)) if events else []
    after = data.draw(st.lists(st.sampled_from(events), max_size=5)) if events else []
    held = store()

    def deliver(batch: list[tuple[str, Object]]) -> None:
        for kind, each in batch:
            if kind == "DELETED":
                uid = each["metadata"]["uid"]  # type: ignore[index]
                held.remove(PODS, NS, "a", uid, resource_version(each))
            else:
                held.put(PODS, each)

    deliver(delivered)
    held.replace(PODS, listed(revision, *([truth] if truth is not None else [])))
    deliver(after)
    assert version(held) == (None if truth is None else resource_version(truth))


def test_texts_that_are_in_many_objects_are_held_once() -> None:
    known = store()
    for name_ in ("a", "b"):
        known.put(PODS, json.loads(json.dumps(obj(name_, 1, labels={"team": "research"}))))
    first, second = known.list(PODS)
    for one, other in zip(first, second, strict=True):
        assert one is other
    first_label, second_label = (item["metadata"]["labels"]["team"] for item in (first, second))  # type: ignore[index]
    assert first_label is second_label


def test_annotation_that_repeats_the_object_is_dropped() -> None:
    known = store()
    applied = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "kept"}
    known.put(PODS, obj("a", 1, annotations=applied))
    (found,) = known.list(PODS)
    assert found["metadata"]["annotations"] == {"note": "kept"}  # type: ignore[index]


def test_b9_a_list_of_one_resource_that_went_back_brings_nothing_of_another_back() -> None:
    held = store()
    held.put(DEPLOYMENTS, obj("d", 4))
    held.remove(DEPLOYMENTS, NS, "d", "uid-d", 5)
    held.replace(PODS, listed(9, obj("a", 9)))
    held.replace(PODS, listed(3, obj("a", 3)))  # restored from a backup
    assert not held.put(DEPLOYMENTS, obj("d", 4)), "a late word about what has ended"


def test_b9_many_pods_that_end_push_no_end_of_another_kind_out() -> None:
    held = Store(watched=[PODS, DEPLOYMENTS], tombstones=3)
    held.remove(DEPLOYMENTS, NS, "d", "uid-d", 5)
    for number in range(9):
        held.remove(PODS, NS, f"p{number}", f"uid-p{number}", number)
    assert not held.put(DEPLOYMENTS, obj("d", 4))


def test_b9_what_was_read_from_an_object_is_kept_as_long_as_the_object_and_no_longer() -> None:
    """With 1025 objects the memory emptied itself, so that each round read them all anew."""
    held, made = store(), []
    for number in range(3000):
        held.put(PODS, obj(f"p{number}", 1))

    def read(item: Object) -> str:
        made.append(name(item))
        return name(item)

    for _ in range(2):
        for item in held.list(PODS):
            assert held.derived.of(item, read) == name(item)
    assert len(made) == 3000
    for item in held.list(PODS):
        held.remove(PODS, NS, name(item), f"uid-{name(item)}")
    assert len(held.derived) == 0


def test_what_is_made_of_what_was_read_is_made_once_for_each_version() -> None:
    held, made = store(), []

    def read(item: Object) -> str:
        made.append(f"read {resource_version(item)}")
        return name(item)

    def longer(text: str) -> str:
        made.append(f"made of {text}")
        return text * 2

    for version in (1, 2):
        held.put(PODS, obj("a", version))
        for _ in range(2):
            (item,) = held.list(PODS)
            assert held.derived.of_read(item, read=read, make=longer) == "aa"
    assert made == ["read 1", "made of a", "read 2", "made of a"]
    held.remove(PODS, NS, "a", "uid-a")
    assert len(held.derived) == 0


def test_the_objects_of_a_deployment_are_the_same_tuple_until_one_of_them_changes() -> None:
    held, labels = store(), {LABEL_DEPLOYMENT: "llama"}
    held.put(PODS, obj("b", 1, labels=labels))
    held.put(PODS, obj("a", 1, labels=labels))
    before = held.labelled(PODS, NS, "llama")
    held.put(PODS, obj("c", 1))
    assert held.labelled(PODS, NS, "llama") is before
    held.put(PODS, obj("b", 2, labels=labels))
    assert [resource_version(item) for item in held.labelled(PODS, NS, "llama")] == [1, 2]
    held.put(PODS, obj("b", 3))  # it has lost its label
    assert [name(item) for item in held.labelled(PODS, NS, "llama")] == ["a"]
    held.remove(PODS, NS, "a", "uid-a")
    assert held.labelled(PODS, NS, "llama") == ()


def test_b9_an_object_in_anothers_place_takes_its_memory_along() -> None:
    held = store()
    held.put(PODS, obj("a", 1, uid="first"))
    held.derived.of(held.list(PODS)[0], name)
    held.put(PODS, obj("a", 2, uid="second"))
    assert len(held.derived) == 0
