"""What is known of vLLM and SGLang: arguments, probes, identity."""

from collections.abc import Mapping

from isthmus.engines.base import EngineProfile
from isthmus.engines.sglang import Sglang
from isthmus.engines.vllm import Vllm

ENGINES: Mapping[str, EngineProfile] = {"vllm": Vllm(), "sglang": Sglang()}
