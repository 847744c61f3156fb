"""M5: which addresses a tenant's router may have, in whatever form, and what is told otherwise."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from isthmus.address_rules import parse_address, special
from isthmus.allow_list import DEFAULT, allow_list
from isthmus.errors import SettingsError
from isthmus.settings import Settings

API_SERVER = ip_address("10.96.0.1")


def refusal(address: str, *, host: str = "router.example.org", entries=DEFAULT) -> str:
    parsed = parse_address(address)
    assert parsed is not None
    return allow_list(entries, protected=[API_SERVER]).refusal(parsed, host=host)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("10.0.0.7", "router.team-a"),
        ("172.16.0.1", "x"),
        ("192.168.1.1", "x"),
        ("100.64.0.1", "x"),
        ("fd00::1", "x"),
        ("::ffff:10.0.0.7", "x"),
        ("203.0.113.7", "router.team-a.svc"),  # Services of a cluster with public addresses
        ("203.0.113.7", "Router.team-a.svc.cluster.local."),
    ],
)
def test_m5_by_default_the_clusters_names_and_private_addresses_may_be_asked(
    address: str, host: str
) -> None:
    assert refusal(address, host=host) == ""


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "::127.0.0.1",
        "169.254.169.254",
        "fe80::1",
        "0.0.0.0",
        "0.0.0.7",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "10.96.0.1",
        "::ffff:10.96.0.1",
        "8.8.8.8",
        "2001:db8::1",
    ],
)
@pytest.mark.parametrize("host", ["x", "evil.svc"])
def test_m5_no_other_address_may_whatever_its_form(address: str, host: str) -> None:
    public = address in ("8.8.8.8", "2001:db8::1")
    if public and host.endswith(".svc"):
        return  # a name of the cluster leads where the cluster's DNS says
    assert refusal(address, host=host)


@pytest.mark.parametrize(
    ("entries", "address", "allowed"),
    [
        (["203.0.113.0/24"], "203.0.113.7", True),
        (["203.0.113.0/24"], "10.0.0.1", False),
        (["127.0.0.1"], "127.0.0.1", True),
        (["127.0.0.0/8"], "127.0.0.9", True),
        (["::1"], "::1", True),
        (["0.0.0.0/0", "::/0"], "8.8.8.8", True),
        (["0.0.0.0/0", "::/0"], "127.0.0.1", False),
        (["0.0.0.0/0", "::/0"], "169.254.169.254", False),
        (["0.0.0.0/0", "::/0"], "0.0.0.0", False),
        (["0.0.0.0/0"], "10.96.0.1", False),
        (["10.96.0.1/32"], "10.96.0.1", True),
        (["169.254.0.0/16"], "169.254.169.254", True),
        (["example.org"], "8.8.8.8", True),
        ([".example.org"], "8.8.8.8", True),
        (["*.example.org"], "8.8.8.8", True),
        (["ample.org"], "8.8.8.8", False),
        (["example.org"], "127.0.0.1", False),
        (["example.org"], "10.96.0.1", False),
        ([], "10.0.0.1", False),
    ],
)
def test_m5_an_administrators_list(entries: list[str], address: str, allowed: bool) -> None:
    assert (refusal(address, entries=entries) == "") is allowed


def test_m5_what_is_refused_says_what_would_allow_it() -> None:
    assert "router-allow" in refusal("8.8.8.8")
    assert "8.8.8.8/32" in refusal("8.8.8.8")
    assert "127.0.0.1/32" in refusal("127.0.0.1")


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "300.1.1.1", "a b", "", "http://x", "x/24"])
def test_m5_a_list_that_cannot_be_read_is_told_at_the_start(entry: str) -> None:
    with pytest.raises(SettingsError, match="router_allow"):
        Settings(router_allow=(entry,))


@pytest.mark.parametrize("text", ["fe80::1%eth0", "fe80::1%$(id)", "localhost", "", "1.2.3"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None


def test_kinds_of_addresses() -> None:
    kinds = {text: special(ip_address(text)) for text in ("10.0.0.1", "127.0.0.1", "fe80::1", "::")}
    assert list(kinds.values()) == ["", "loopback", "link-local", "unspecified"]
