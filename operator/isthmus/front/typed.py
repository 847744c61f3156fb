"""Short forms of what stands in Envoy's configuration again and again."""

Json = dict[str, object]

TYPE = "type.googleapis.com/envoy"


def typed(name: str, type_: str, **fields: object) -> Json:
    """An extension: its name, and its configuration of a type below `type.googleapis.com/envoy`."""
    return {"name": name, "typed_config": {"@type": f"{TYPE}.{type_}", **fields}}


def listening(host: str, port: int) -> Json:
    """Where a listener takes connections; `::` takes both families."""
    place: Json = {"address": host, "port_value": port}
    return {"socket_address": place | ({"ipv4_compat": True} if host == "::" else {})}


def address(address: str, port: int) -> Json:
    """Where something listens."""
    return {"socket_address": {"address": address, "port_value": port}}


def from_file(directory: str, name: str) -> Json:
    """Configuration that Envoy reads again when the file is renamed into the directory."""
    return {
        "resource_api_version": "V3",
        "path_config_source": {
            "path": f"{directory}/{name}",
            "watched_directory": {"path": directory},
        },
    }
