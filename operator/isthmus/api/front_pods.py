"""What an administrator adds to the pods of all fronts: the setting `front-pods`.

Apart from the kinds: it stands in no object of a user. The words are those of a pod.
"""

import json
from functools import lru_cache
from typing import Annotated

from pydantic import Field, ValidationError

from isthmus.api.base import SpecModel
from isthmus.api.schedulers import PullSecretRef, TolerationSpec

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|k|Ki|M|Mi|G|Gi)?$")]


class FrontResources(SpecModel):
    """Requests and limits of Envoy's container, as Kubernetes quantities."""

    requests: dict[str, Quantity] = Field(default_factory=dict)
    limits: dict[str, Quantity] = Field(default_factory=dict)


class FrontPods(SpecModel):
    """Where fronts may run, by which right their image is pulled, and what they may use."""

    image_pull_secrets: tuple[PullSecretRef, ...] = ()
    """Secrets that must lie in each namespace with a front; one that is missing is passed over."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[TolerationSpec, ...] = ()
    priority_class_name: Annotated[str, Field(max_length=253)] = ""
    resources: FrontResources = FrontResources()

    def pod_fields(self) -> dict[str, object]:
        """What is given of it, as it stands in a pod's specification."""
        return self.model_dump(
            mode="json",
            by_alias=True,
            exclude_defaults=True,
            exclude_none=True,
            exclude={"resources"},
        )

    def quantities(self) -> dict[str, dict[str, str]]:
        """Requests and limits that are given."""
        found = self.resources.model_dump(exclude_defaults=True)
        return {str(kind): dict(amounts) for kind, amounts in found.items()}


NO_MORE = FrontPods()
"""Nothing is added."""


@lru_cache(maxsize=8)
def read_front_pods(text: str) -> FrontPods:
    """Read the setting; "" says nothing.

    Raises:
        ValueError: it is no such object; one sentence says which field.
    """
    try:
        return FrontPods.model_validate(json.loads(text or "{}"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"front_pods: {where}: {first['msg']}.") from None
    except (ValueError, RecursionError):
        raise ValueError(
            "front_pods is no JSON object; write for example "
            '{"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}.'
        ) from None
