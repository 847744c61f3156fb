"""What is known of vLLM and SGLang: arguments, probes, identity."""

from collections.abc import Mapping

from isthmus.engines.base import EngineProfile
from isthmus.engines.sglang import Sglang
from isthmus.engines.vllm import Vllm

ENGINES: Mapping[str, EngineProfile] = {"vllm": Vllm(), "sglang": Sglang()}


def engine_started_by(program: object) -> str | None:
    """Name of the engine whose command line begins with a program; None for no engine's."""
    return next((name for name, each in ENGINES.items() if each.program == program), None)
