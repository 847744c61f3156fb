"""What is said of failures never quotes what failed."""

import pytest
from pydantic import ValidationError

from isthmus.api.modeldeployment import ModelDeployment
from isthmus.guarded import unreadable, where

CANARY = "canary-1f6b"


def test_an_unreadable_object_is_told_by_fields_and_not_by_what_they_hold() -> None:
    pools = [{"name": "k8s", "kubernetes": {}, "engine": {"env": [{"name": CANARY, "value": {}}]}}]
    spec = {"model": {"source": "hf://a/b"}, "pools": pools, "replicas": {"x": CANARY}}
    with pytest.raises(ValidationError) as caught:
        ModelDeployment.model_validate({"metadata": {"name": "a", "namespace": "b"}, "spec": spec})
    said = unreadable(caught.value)
    assert "replicas" in said
    assert CANARY not in said


def test_an_exception_is_told_by_kinds_and_places() -> None:
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        said = where(error)
    assert said.startswith("ValueError")
    assert "test_guarded.py" in said
    assert CANARY not in said
