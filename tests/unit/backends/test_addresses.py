"""Names of nodes become addresses, looked up once in a while; addresses stay as they are."""

from collections.abc import Mapping, Sequence

import pytest

from isthmus.backends.slurm.addresses import (
    FOUND_SECONDS,
    NOT_FOUND_SECONDS,
    AddressBook,
    is_address,
    system_lookup,
)
from isthmus.backends.slurm.records import NodeRecord


class Resolver:
    def __init__(self, **known: str) -> None:
        self.known = {name.replace("_", "."): address for name, address in known.items()}
        self.asked: list[str] = []

    async def __call__(self, names: Sequence[str]) -> Mapping[str, str]:
        self.asked += names
        return {name: self.known[name] for name in names if name in self.known}


def node(address: str) -> NodeRecord:
    return NodeRecord(
        name="n", address=address, states=frozenset({"IDLE"}), reason="", partitions=frozenset()
    )


async def test_names_are_looked_up_once_in_a_while() -> None:
    now = [1000.0]
    resolver = Resolver(gpu01_site="10.1.2.3")
    book = AddressBook(clock=lambda: now[0], lookup=resolver)
    nodes = {"a": node("gpu01.site"), "b": node("10.9.9.9"), "c": node("gone.site")}
    for _ in range(3):
        found = await book.resolved(nodes)
        assert [found[key].address for key in "abc"] == ["10.1.2.3", "10.9.9.9", "gone.site"]
    assert sorted(resolver.asked) == ["gone.site", "gpu01.site"]

    now[0] += NOT_FOUND_SECONDS
    resolver.known["gone.site"] = "10.1.2.4"
    assert (await book.resolved(nodes))["c"].address == "10.1.2.4"
    assert resolver.asked.count("gpu01.site") == 1

    now[0] += FOUND_SECONDS
    resolver.known["gpu01.site"] = "10.1.2.33"
    assert (await book.resolved(nodes))["a"].address == "10.1.2.33"


def test_addresses_are_told_from_names() -> None:
    assert is_address("10.0.0.1")
    assert is_address("fd00::1")
    assert not is_address("gpu01")
    assert not is_address("fe80::1%$(id)")  # L6


@pytest.mark.parametrize("name", ["gpu..example.org", "a" * 70, "a" * 70 + ".org", "\ud800"])
async def test_m1_a_name_that_is_none_has_no_address(name: str) -> None:
    """One typo in slurm.conf ended the operator for all clusters."""
    assert await system_lookup([name]) == {}
