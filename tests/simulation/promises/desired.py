"""What is desired, as users wrote it: read from the stored specifications."""

from isthmus.api import names
from isthmus.api.durations import parse_duration
from isthmus.api.health import HealthSpec
from isthmus.api.modeldeployment import DrainSpec
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS
from tests.simulation.apiserver import ApiSimulator, Json

Place = tuple[str, str]
"""Namespace and name of a ModelDeployment."""

_DRAIN, _STARTUP = DrainSpec().timeout, HealthSpec().startup_timeout


def drain_timeout(api: ApiSimulator, place: Place) -> float:
    """Seconds that requests get to finish; what is left of a deployment has the default."""
    return _seconds(api, place, "drain", "timeout", default=_DRAIN)


def startup_timeout(api: ApiSimulator, place: Place) -> float:
    """Seconds until a worker that does not answer is given up."""
    return _seconds(api, place, "health", "startupTimeout", default=_STARTUP)


def membership(api: ApiSimulator, place: Place) -> str:
    """Namespace and name of the Service behind which the workers of a deployment stand."""
    found = k8s.dig(api.get(MODEL_DEPLOYMENTS, *place), "spec", "endpoint", "type")
    service = names.membership_service(place[1], managed=found == "Managed")
    return f"{place[0]}/{service}"


def of_a_worker(obj: Json, deployment: str) -> bool:
    """Whether a pod or a Deployment is one of a deployment's workers, and not of its front."""
    labels = k8s.labels(obj)
    ours = labels.get(names.LABEL_DEPLOYMENT) == deployment
    return ours and names.LABEL_COMPONENT not in labels


def _seconds(api: ApiSimulator, place: Place, *path: str, default: str) -> float:
    found = k8s.dig(api.get(MODEL_DEPLOYMENTS, *place), "spec", *path, default=default)
    return parse_duration(str(found))
