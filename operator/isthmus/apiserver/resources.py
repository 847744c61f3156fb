"""The resources of the API server that Isthmus reads and writes, and which of them it watches.

Apart from the client, because the store, the watch and the relist name resources without any I/O.
"""

from dataclasses import dataclass

from isthmus.api import names


@dataclass(frozen=True, slots=True)
class Resource:
    """One namespaced resource of the API server.

    Attributes:
        group: API group, "" for the core group.
        version: version within the group, e.g. `v1`.
        plural: name in the URL, e.g. `deployments`.
        kind: name in an object, e.g. `Deployment`.
    """

    group: str
    version: str
    plural: str
    kind: str

    def __hash__(self) -> int:
        """By the plural alone: a resource is a key of nearly every look-up in the store."""
        return hash(self.plural)

    @property
    def api_version(self) -> str:
        """`apiVersion` as it stands in an object, e.g. `apps/v1` or `v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """URL path of the group and version, e.g. `/apis/apps/v1` or `/api/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def __str__(self) -> str:
        """Return `plural.group`, as kubectl writes it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_OURS = (names.GROUP, names.VERSION)

MODEL_DEPLOYMENTS = Resource(*_OURS, "modeldeployments", "ModelDeployment")
SLURM_CLUSTERS = Resource(*_OURS, "slurmclusters", "SlurmCluster")
SLURM_JOBS = Resource(*_OURS, "slurmjobs", "SlurmJob")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
SECRETS = Resource("", "v1", "secrets", "Secret")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
EVENTS = Resource("", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")

MANAGED_BY_SELECTOR = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
"""Selector on the server, so that the pods of everybody else cost us nothing."""

WATCHED: tuple[tuple[Resource, str], ...] = (
    (MODEL_DEPLOYMENTS, ""),
    (SLURM_CLUSTERS, ""),
    (SLURM_JOBS, ""),
    (DEPLOYMENTS, MANAGED_BY_SELECTOR),
    (PODS, MANAGED_BY_SELECTOR),
    (SERVICES, MANAGED_BY_SELECTOR),
    (ENDPOINT_SLICES, MANAGED_BY_SELECTOR),
    (CONTROLLER_REVISIONS, MANAGED_BY_SELECTOR),
)
"""What the store holds: (resource, label selector on the server; "" for every object)."""
