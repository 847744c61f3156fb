"""The operator's settings: where they come from, and what is said about wrong ones."""

import dataclasses

import pytest

from isthmus.errors import SettingsError
from isthmus.settings import PREFIX, Settings
from isthmus.tunnels.settings import TunnelSettings


def test_defaults_need_no_environment() -> None:
    settings = Settings.from_environment({})
    assert settings.namespace == "isthmus-system"
    assert settings.leader_election is True
    assert settings.lease_duration == 15
    assert settings.slurm_poll_interval is None
    assert settings.identity != Settings.from_environment({}).identity, "unique per process"


def test_environment_is_read_and_the_command_line_comes_first() -> None:
    environ = {
        "ISTHMUS_RELIST_INTERVAL": "5m",
        "ISTHMUS_RETRY_BASE": "250ms",
        "ISTHMUS_API_TIMEOUT": "7.5",
        "ISTHMUS_WATCH_NAMESPACES": "team-a, team-b",
        "ISTHMUS_LEADER_ELECTION": "False",
        "ISTHMUS_WORKERS": "3",
        "ISTHMUS_LIVENESS_PORT": "0",
        "ISTHMUS_LOG_LEVEL": "DEBUG",
        "ISTHMUS_SLURM_TIMEOUT": "",
        "ISTHMUS_INSTALLATION_ID": "abcd1234",
        "OTHER": "ignored",
    }
    settings = Settings.from_environment(environ, workers=5, installation_id=None, stale_after="4")
    assert settings.relist_interval == 300
    assert settings.retry_base == 0.25
    assert settings.api_timeout == 7.5
    assert settings.watch_namespaces == ("team-a", "team-b")
    assert settings.leader_election is False
    assert settings.workers == 5
    assert settings.liveness_port is None
    assert settings.log_level == "debug"
    assert settings.slurm_timeout is None, "an empty variable is not set"
    assert settings.installation_id == "abcd1234", "an option that is not given changes nothing"
    assert settings.stale_after == 4


def test_every_field_can_come_from_the_environment() -> None:
    examples = {
        "log_format": "json",
        "log_level": "error",
        "ip_family": "ipv6",
        "installation_id": "00000000",
        "leader_election": "no",
        "generate_api_keys": "no",
        "local_login": "yes",
        "router_allow": "private, example.org",
        "lease_duration": "30",
        "renew_deadline": "20",
        "renew_interval": "7",
        "renew_timeout": "6",
        "failure_backoff_cap": "70",
        "retry_cap": "70",
        "front_pods": '{"priorityClassName": "high"}',
        "tunnel_port_first": "21000",
        "tunnel_port_last": "21000",
    }
    fitting = {
        "renew_deadline": {"lease_duration": 30.0},
        "renew_timeout": {"renew_interval": 7.0},
    }
    for each in dataclasses.fields(Settings):
        text = examples.get(each.name, "7")
        others = fitting.get(each.name, {})
        settings = Settings.from_environment({PREFIX + each.name.upper(): text}, **others)
        assert getattr(settings, each.name) is not None, each.name
        assert getattr(settings, each.name) != each.default, each.name


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("RELIST_INTERVAL", "soon", "write a duration such as 30s"),
        ("RELIST_INTERVAL", "0", "relist_interval is 0; it must be greater than 0"),
        ("WORKERS", "many", "ISTHMUS_WORKERS is 'many'; write a whole number"),
        ("WORKERS", "0", "greater than 0"),
        ("LEADER_ELECTION", "maybe", "write true or false"),
        ("INSTALLATION_ID", "Prod", "exactly 8 characters of a-z and 0-9"),
        ("LOG_FORMAT", "xml", "write text or json"),
        ("LOG_LEVEL", "loud", "write debug, info, warning or error"),
        ("WATCH_NAMESPACES", "Team_A", "'Team_A' cannot be a namespace's name"),
        ("LIVENESS_PORT", "70000", "at most 65535"),
        ("METRICS_PORT", "70000", "metrics_port is 70000; write at most 65535"),
        ("METRICS_PORT", "8081", "metrics_port must not be liveness_port"),
        ("STALE_AFTER", "long", "write a number"),
        ("RENEW_INTERVAL", "12", "renew_interval (12 s) must be less than renew_deadline (10 s)"),
        ("RETRY_BASE", "400", "retry_base (400 s) must not be more than retry_cap (300 s)"),
    ],
)
def test_mistakes_are_named_with_what_to_write(variable: str, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({PREFIX + variable: text})
    assert said in str(caught.value)


def test_option_is_named_as_it_was_given() -> None:
    with pytest.raises(SettingsError, match="--relist-interval is 'soon'"):
        Settings.from_environment({}, relist_interval="soon")
    with pytest.raises(SettingsError, match="no setting relist"):
        Settings.from_environment({}, relist="1")


def test_times_have_no_lower_bound_but_zero() -> None:
    Settings(
        lease_duration=0.004,
        renew_interval=0.001,
        relist_interval=0.001,
        api_timeout=0.001,
        deregister_delay=0.001,
        workers=1,
    )


def test_every_setting_that_is_true_or_false_is_read_as_such() -> None:
    for field in dataclasses.fields(Settings):
        if field.type is bool:
            found = Settings.from_environment({PREFIX + field.name.upper(): "false"})
            assert getattr(found, field.name) is False, field.name


def test_the_tunnel_supervisor_is_told_in_the_same_words() -> None:
    given = {"POD_IP": "10.0.0.1", "ISTHMUS_TUNNELS_STATUS_PORT": "0"}
    settings = TunnelSettings.from_environment({**given, "ISTHMUS_TUNNELS_CHECK_INTERVAL": "2s"})
    assert (settings.address, settings.status_port) == ("10.0.0.1", None)
    assert settings.check_interval == 2
    assert TunnelSettings.from_environment(given, address="10.0.0.2").address == "10.0.0.2"
    for variable, text, said in (
        ("LOG_LEVEL", "loud", "write debug, info, warning or error"),
        ("STATUS_PORT", "many", "write a whole number"),
        ("CHECK_INTERVAL", "soon", "ISTHMUS_TUNNELS_CHECK_INTERVAL is 'soon'; write a duration"),
    ):
        with pytest.raises(SettingsError, match=said):
            TunnelSettings.from_environment({**given, f"ISTHMUS_TUNNELS_{variable}": text})
