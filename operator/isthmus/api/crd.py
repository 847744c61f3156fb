"""From the pydantic models to CustomResourceDefinitions.

Pydantic's JSON Schema is not what the API server takes: a structural schema has no `$ref`, no
`anyOf` with null, no `additionalProperties: false`, and a parent needs `default: {}` so that the
defaults below it are filled in. The generator rewrites it and nothing else; all content (bounds,
rules, descriptions) stands in the models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import yaml
from pydantic import BaseModel

from isthmus.api.base import VALIDATIONS
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.api.names import CATEGORY, GROUP, LABEL_MANAGED_BY, MANAGED_BY, VERSION
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob

Schema: TypeAlias = dict[str, object]

SIZE_LIMIT: Final = 100_000
"""Bytes of one CRD: client-side `kubectl apply` stores it in an annotation of at most 256 KiB."""

_KEPT: Final = (
    "type",
    "description",
    "default",
    "enum",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)
"""Keywords that are taken over as they are, in the order in which they are written."""

_META: Final = frozenset({"api_version", "apiVersion", "kind", "metadata"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One printer column of `kubectl get`; `wide` ones only with `-o wide`."""

    name: str
    path: str
    description: str
    type: Literal["string", "integer", "date"] = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a CRD says beside its schema."""

    model: type[BaseModel]
    plural: str
    short: str
    columns: tuple[Column, ...]
    scale: bool = False

    @property
    def name(self) -> str:
        """The kind, such as ModelDeployment."""
        return self.model.__name__


_AGE: Final = Column(
    name="Age",
    path=".metadata.creationTimestamp",
    type="date",
    description="Time since the object was made.",
)


def _condition(type: str, part: str) -> str:
    return f'.status.conditions[?(@.type=="{type}")].{part}'


KINDS: Final = (
    Kind(
        model=ModelDeployment,
        plural="modeldeployments",
        short="mdep",
        scale=True,
        columns=(
            Column(name="Ready", path=".status.ready", description="Ready and desired workers."),
            Column(
                name="Desired",
                path=".spec.replicas",
                type="integer",
                description="Workers wanted over all pools.",
            ),
            Column(
                name="Up-to-date",
                path=".status.updatedReplicas",
                type="integer",
                description="Workers of the current revision.",
            ),
            Column(name="Backend", path=".status.backend", description="Schedulers in use."),
            Column(name="Status", path=".status.summary", description="The state in a few words."),
            _AGE,
            Column(name="Engine", path=".status.engine", description="Engines in use.", wide=True),
            Column(name="Model", path=".spec.model.source", description="Model served.", wide=True),
            Column(name="URL", path=".status.url", description="Address for clients.", wide=True),
            Column(
                name="Tunnels",
                path=".status.tunnels.summary",
                description="Forwards that work and that are wanted.",
                wide=True,
            ),
            Column(
                name="Draining",
                path=".status.draining",
                type="integer",
                description="Workers that finish their requests and then go.",
                wide=True,
            ),
        ),
    ),
    Kind(
        model=SlurmCluster,
        plural="slurmclusters",
        short="slc",
        columns=(
            Column(
                name="Reachable",
                path=_condition("SlurmReachable", "status"),
                description="Whether the last look at the cluster was complete and recent.",
            ),
            Column(
                name="Reason",
                path=_condition("SlurmReachable", "reason"),
                description="Why.",
            ),
            Column(name="Nodes", path=".status.nodes", description="Usable and all nodes."),
            Column(name="Jobs", path=".status.jobs", type="integer", description="Our live jobs."),
            _AGE,
            Column(
                name="Version", path=".status.version", description="SLURM's version.", wide=True
            ),
        ),
    ),
    Kind(
        model=SlurmJob,
        plural="slurmjobs",
        short="sj",
        columns=(
            Column(
                name="JobID",
                path=".status.jobId",
                type="integer",
                description="Job id in SLURM.",
            ),
            Column(name="State", path=".status.phase", description="Where the attempt stands."),
            Column(name="Reason", path=".status.reason", description="Why."),
            Column(name="Node", path=".status.nodes", description="Nodes of the job."),
            # A string: a date column prints ages, and an end lies ahead.
            Column(name="Ends", path=".status.endTime", description="When SLURM ends the job."),
            _AGE,
            Column(name="Pool", path=".spec.pool", description="Its pool.", wide=True),
            Column(
                name="Cluster",
                path=".spec.clusterRef.name",
                description="SLURM cluster.",
                wide=True,
            ),
            Column(name="URL", path=".status.url", description="Address of the engine.", wide=True),
        ),
    ),
)
"""All kinds, with what their CRDs say beside the schema."""


def custom_resource_definition(kind: Kind) -> Schema:
    """Return the CRD of one kind, ready to be written as YAML or applied."""
    subresources: Schema = {"status": {}}
    if kind.scale:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            "labels": {LABEL_MANAGED_BY: MANAGED_BY},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": subresources,
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": object_schema(kind.model)},
                }
            ],
        },
    }


def _column(column: Column) -> Schema:
    made: Schema = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    if column.wide:
        made["priority"] = 1
    return made


def object_schema(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a whole object; metadata is the API server's."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    definitions = _mapping(raw.get("$defs", {}))
    properties = _mapping(raw["properties"])
    raw = {**raw, "properties": {k: v for k, v in properties.items() if k not in _META}}
    schema = structural(raw, definitions=definitions)
    schema["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        **_mapping(schema["properties"]),
    }
    schema["required"] = ["spec"]
    return schema


def structural(raw: Mapping[str, object], *, definitions: Mapping[str, object]) -> Schema:
    """Return one node of pydantic's schema as the API server takes it."""
    node = _resolved(raw, definitions=definitions)
    made: Schema = {key: node[key] for key in _KEPT if key in node}
    if made.get("default", False) is None or isinstance(made.get("default"), list):
        del made["default"]
    if "const" in node:
        made["enum"] = [node["const"]]
    if node.get("type") == "object":
        _object(made, node, definitions=definitions)
    if "items" in node:
        made["items"] = structural(_mapping(node["items"]), definitions=definitions)
    made.update(
        {key: node[key] for key in sorted(node) if key.startswith("x-") and key != VALIDATIONS}
    )
    if made.get("x-kubernetes-int-or-string"):
        del made["type"]
    if VALIDATIONS in node:
        made[VALIDATIONS] = node[VALIDATIONS]
    return made


def _object(made: Schema, node: Mapping[str, object], *, definitions: Mapping[str, object]) -> None:
    if "properties" in node:
        properties = _mapping(node["properties"])
        made["properties"] = {
            name: structural(_mapping(value), definitions=definitions)
            for name, value in properties.items()
        }
        if "default" in made and VALIDATIONS not in node:
            # The API server judges a default by the object's own rules before it fills in the
            # defaults below it, so an object with rules keeps its default in full.
            made["default"] = {}
        elif isinstance(default := made.get("default"), dict):
            made["default"] = {key: value for key, value in default.items() if value is not None}
        if node.get("required"):
            made["required"] = node["required"]
        return
    # A map: pydantic writes the type of its values as additionalProperties.
    values = _mapping(node.get("additionalProperties", {}))
    made["additionalProperties"] = structural(values, definitions=definitions)
    made.pop("default", None)


def _resolved(raw: Mapping[str, object], *, definitions: Mapping[str, object]) -> Schema:
    """Return a node with `$ref` and `anyOf` with null replaced by what they stand for.

    What stands beside a reference (description, default) wins over what is referred to; CEL
    rules of both hold.
    """
    node = dict(raw)
    while True:
        if "$ref" in node:
            name = str(node.pop("$ref")).rpartition("/")[2]
            inner = _mapping(definitions[name])
        elif "anyOf" in node:
            alternatives = node.pop("anyOf")
            assert isinstance(alternatives, list)
            rest = [one for one in alternatives if one != {"type": "null"}]
            assert len(rest) == 1, f"a structural schema has no unions: {alternatives}"
            inner = _mapping(rest[0])
        else:
            return node
        all_rules = [*_list(inner.get(VALIDATIONS)), *_list(node.get(VALIDATIONS))]
        node = {**inner, **node}
        if all_rules:
            node[VALIDATIONS] = all_rules


def _mapping(value: object) -> Schema:
    assert isinstance(value, dict), value
    return value


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


class _Dumper(yaml.SafeDumper):
    """YAML without anchors, lists indented, as the Kubernetes project writes it."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def as_yaml(definition: Mapping[str, object]) -> str:
    """Return one CRD as YAML, the same text every time."""
    text = yaml.dump(definition, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return f"# Generated by `isthmus crds` from the models in isthmus.api: edit those.\n{text}"


def file_name(kind: Kind) -> str:
    """Return the name of a CRD's file under crds/."""
    return f"{GROUP}_{kind.plural}.yaml"
