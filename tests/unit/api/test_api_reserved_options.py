"""The lists of options that users may not give are exact: no more and no less is refused."""

from pathlib import Path

import pytest

from isthmus.api.engine import ARGUMENT_RULES
from isthmus.api.reserved_options import (
    ENGINE_RESERVED,
    ENGINE_RESERVED_SHORT,
    SBATCH_PROTECTED,
    SGLANG_RESERVED,
    VLLM_RESERVED,
    joined,
)
from isthmus.cli.schema_check import check

DATA = Path(__file__).parents[3] / "playground" / "engines" / "data"


def options_of(engine: str) -> set[str]:
    lines = (DATA / f"{engine}-options.tsv").read_text(encoding="utf-8").splitlines()
    names = [line.split("\t")[0] for line in lines if line and not line.startswith("#")]
    return {name for entry in names for name in entry.replace(",", " ").split()}


def refused(argument: str) -> bool:
    schema = {
        "type": "object",
        "properties": {
            "metadata": {"type": "object"},
            "argument": {
                "type": "string",
                "x-kubernetes-validations": [
                    {"rule": rule.expression, "message": rule.message} for rule in ARGUMENT_RULES
                ],
            },
        },
    }
    found = check({"metadata": {"name": "a"}, "argument": argument}, schema)
    assert not any("could not be checked" in problem.message for problem in found)
    return bool(found)


@pytest.mark.parametrize(
    ("engine", "reserved"), [("vllm", VLLM_RESERVED), ("sglang", SGLANG_RESERVED)]
)
def test_reserved_options_exist(engine, reserved):
    assert reserved - {"--help"} <= options_of(engine)


@pytest.mark.timeout(600)  # some hundred rules, evaluated for each option
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_every_other_option_is_free(engine):
    """No option that is not ours is a prefix of one that is, so none is refused by mistake."""
    wrongly = {
        option
        for option in options_of(engine) - ENGINE_RESERVED - {"-h", "-n", "-r"}
        if option.startswith("-") and refused(f"{option}=1")
    }
    assert wrongly == set()


def test_no_option_is_ours_for_one_engine_and_free_for_the_other():
    for reserved, other in ((VLLM_RESERVED, "sglang"), (SGLANG_RESERVED, "vllm")):
        shared = reserved & options_of(other)
        assert shared <= VLLM_RESERVED & SGLANG_RESERVED


@pytest.mark.parametrize("option", sorted(ENGINE_RESERVED))
def test_every_abbreviation_of_ours_is_refused(option):
    for length in range(2, len(option) + 1):
        assert refused(option[:length]), option[:length]
        assert refused(f"{option[:length]}=x"), option[:length]
    assert refused(option.replace("-", "_").replace("__", "--", 1) + "=x")


def test_short_forms_are_those_of_vllm():
    short = {option for option in options_of("vllm") if len(option) == 2 and option != "-q"}
    assert short | {"-h"} == {f"-{letter}" for letter in ENGINE_RESERVED_SHORT}


@pytest.mark.parametrize(
    "argument", ["8192", '{"a": "--port=1"}', "-tp=2", "-q", "--model-impl=x", "--config-format=x"]
)
def test_values_and_longer_names_are_free(argument):
    assert not refused(argument)


@pytest.mark.parametrize(
    "option",
    [
        "--acctg-freq",
        "--constraint",
        "--container-image",
        "--contiguous",
        "--core-spec",
        "--cores-per-socket",
        "--delay-boot",
        "--distribution",
        "--exclude",
        "--gpu-bind",
        "--gpu-freq",
        "--gres-flags",
        "--hint",
        "--licenses",
        "--mcs-label",
        "--mem-bind",
        "--network",
        "--nice",
        "--no-kill",
        "--nodelist",
        "--oversubscribe",
        "--prefer",
        "--priority",
        "--reservation",
        "--segment",
        "--spread-job",
        "--switches",
        "--threads-per-core",
        "--tmp",
        "--use-min-nodes",
        "--wckey",
    ],
)
def test_placement_options_of_sbatch_are_free(option):
    assert f"|{option}" not in joined(SBATCH_PROTECTED)


def test_joined_loses_no_prefix():
    for options in (ENGINE_RESERVED, SBATCH_PROTECTED):
        text = joined(options)
        assert all(f"|{option}" in text for option in options)
