"""The command `vllm serve`: what it takes, what it refuses, and how it becomes a running engine.

Apart from `vllm.py` so that the behaviour of a running engine reads without command-line detail.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Sequence

from .application import EngineConfig
from .knobs import Knobs, describe
from .options import build_parser, normalize_vllm
from .processes import Children
from .rendezvous import RendezvousError
from .vllm import VERSION, HeadlessVllm, SharedMemoryError, Vllm


def _configure(arguments: argparse.Namespace, knobs: Knobs) -> EngineConfig:
    names = tuple(arguments.served_model_name or [arguments.model])
    length = arguments.max_model_len
    key = os.environ.get("VLLM_API_KEY")
    return EngineConfig(
        name="vLLM",
        version=VERSION,
        model=arguments.model,
        served_names=names,
        host=arguments.host or "",
        port=8000 if arguments.port is None else arguments.port,
        context_length=length if length and length > 0 else knobs.context_length,
        max_running=arguments.max_num_seqs or knobs.max_running,
        stream_interval=arguments.stream_interval or 1,
        api_keys=tuple(arguments.api_key or ([key] if key else [])),
        keep_alive_seconds=float(os.environ.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5")),
        ranks=arguments.nnodes or 1,
        rank=arguments.node_rank or 0,
        leader_host=arguments.master_addr or "127.0.0.1",
        leader_port=arguments.master_port or 29501,
        arguments=vars(arguments),
    )


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what vLLM refuses after parsing.

    Raises:
        ValueError: the settings do not go together.
    """
    port = os.environ.get("VLLM_PORT")
    if port is not None and not re.fullmatch(r"\s*[+-]?\d+\s*", port):
        if "://" in port:
            raise ValueError(
                f"VLLM_PORT '{port}' appears to be a URI. This may be caused by a Kubernetes "
                "service discovery issue,check the warning in: "
                "https://docs.vllm.ai/en/latest/configuration/env_vars.html"
            )
        raise ValueError(f"VLLM_PORT '{port}' must be a valid integer")
    if arguments.enable_auto_tool_choice and not arguments.tool_call_parser:
        raise ValueError("Error: --enable-auto-tool-choice requires --tool-call-parser")
    if (arguments.node_rank or 0) >= (arguments.nnodes or 1):
        raise ValueError(f"node_rank {arguments.node_rank} must be less than nnodes")
    if (arguments.node_rank or 0) > 0 and not arguments.headless:
        raise ValueError("node_rank > 0 runs no API server: add --headless")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse what follows `vllm serve`; exits with code 2 on what vLLM would refuse."""
    epilog = "Environment of the simulator:\n" + describe()
    parser = build_parser("vllm", prog="vllm serve", epilog=epilog)
    parser.usage = "vllm serve [model_tag] [options]"
    parser.add_argument("model_tag", nargs="?", default=None)
    arguments = parser.parse_args(normalize_vllm(argv))
    arguments.model = arguments.model_tag or arguments.model or "Qwen/Qwen3-0.6B"
    return arguments


async def _run(kind: type[Vllm], config: EngineConfig, *, knobs: Knobs, children: Children) -> int:
    return await kind(config, knobs=knobs, children=children).main()


def serve(argv: Sequence[str]) -> int:
    """Run `vllm serve` with these arguments; return its exit code."""
    arguments = parse(argv)
    knobs = Knobs.from_environment()
    try:
        _check(arguments)
    except ValueError as error:
        print(f"ValueError: {error}", file=sys.stderr)
        return 1
    config = _configure(arguments, knobs)
    children = Children(orphans_live=True)
    children.start("VLLM::EngineCore")
    children.start("VLLM::Worker_TP0")
    kind = HeadlessVllm if arguments.headless else Vllm
    try:
        return asyncio.run(_run(kind, config, knobs=knobs, children=children))
    except (OSError, RendezvousError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except SharedMemoryError as error:
        print(f"RuntimeError: {error}", file=sys.stderr)
        return 1
    finally:
        children.kill()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `vllm` command."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["-v"], ["--version"]):
        print(VERSION)
        return 0
    if words[:1] != ["serve"]:
        what = f"invalid choice: {words[0]!r}" if words else "a subcommand is required"
        print(f"usage: vllm [-h] [-v] {{serve}} ...\nvllm: error: {what}", file=sys.stderr)
        return 2
    return serve(words[1:])
