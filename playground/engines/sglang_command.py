"""The commands `sglang serve` and `python -m sglang.launch_server`, from arguments to an engine.

Apart from `sglang.py` so that the behaviour of a running engine reads without command-line detail.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .application import EngineConfig
from .knobs import Knobs, describe
from .options import build_parser
from .processes import Children
from .rendezvous import RendezvousError
from .sglang import VERSION, Sglang, SglangOtherRank

DEPRECATED = (
    "UserWarning: 'python -m sglang.launch_server' is still supported, but 'sglang serve' is the "
    "recommended entrypoint.\n  Example: sglang serve --model-path <model> [options]"
)


def parse(argv: Sequence[str], *, prog: str) -> argparse.Namespace:
    """Parse the server's options; exits with code 2 on what SGLang would refuse."""
    epilog = "Environment of the simulator:\n" + describe()
    parser = build_parser("sglang", prog=prog, epilog=epilog)
    arguments = parser.parse_args(merge_config(argv))
    if not arguments.model_path:
        parser.error("the following arguments are required: --model-path/--model")
    return arguments


def merge_config(argv: Sequence[str]) -> list[str]:
    """Put the options of the file of `--config FILE` before all others, as SGLang does.

    Only the word `--config` by itself counts, and only a flat file of `name: value` lines is read
    here, where SGLang reads all of YAML.

    Raises:
        ValueError: several files, none, or one that is not YAML by its name.
    """
    words = list(argv)
    if "--config" not in words:
        return words
    place = words.index("--config")
    if words.count("--config") > 1:
        raise ValueError("Multiple config files specified! Only one allowed.")
    if place == len(words) - 1:
        raise ValueError("No config file specified after --config flag!")
    path = Path(words[place + 1])
    if path.suffix.lower() not in {".yaml", ".yml"}:
        raise ValueError(f"Config file must be YAML format, got: {path.suffix}")
    if not path.exists():
        raise ValueError(f"Config file not found: {path}")
    merged = []
    for line in path.read_text(encoding="utf-8").splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            merged += [f"--{name.strip()}", value.strip().strip("\"'")]
    return [*merged, *words[:place], *words[place + 2 :]]


def _leader(arguments: argparse.Namespace) -> tuple[str, int]:
    """Split `--dist-init-addr`.

    Raises:
        ValueError: it is not HOST:PORT, or absent with several nodes.
    """
    address = arguments.dist_init_addr or ""
    host, colon, port = address.rpartition(":")
    if not address and (arguments.nnodes or 1) == 1:
        return "", 0
    if not colon or not host or not port.isdigit():
        raise ValueError(f"--dist-init-addr must be HOST:PORT with several nodes, got {address!r}")
    return host.strip("[]"), int(port)


def _configure(arguments: argparse.Namespace, knobs: Knobs) -> EngineConfig:
    ranks, rank = arguments.nnodes or 1, arguments.node_rank or 0
    if not 0 <= rank < ranks:
        raise ValueError(f"--node-rank {rank} must be below --nnodes {ranks}")
    leader_host, leader_port = _leader(arguments)
    keys = (arguments.api_key, arguments.admin_api_key)
    return EngineConfig(
        name="SGLang",
        version=VERSION,
        model=arguments.model_path,
        served_names=(arguments.served_model_name or arguments.model_path,),
        host=arguments.host or "127.0.0.1",
        port=30000 if arguments.port is None else arguments.port,
        context_length=arguments.context_length or knobs.context_length,
        max_running=arguments.max_running_requests or knobs.max_running,
        stream_interval=arguments.stream_interval or 1,
        api_keys=tuple(key for key in keys if key) if arguments.api_key else (),
        keep_alive_seconds=float(os.environ.get("SGLANG_TIMEOUT_KEEP_ALIVE", "5")),
        ranks=ranks,
        rank=rank,
        leader_host=leader_host,
        leader_port=leader_port,
        arguments=vars(arguments),
        decode_log_interval=arguments.decode_log_interval or 40,
        default_model_name="default",
    )


async def _run(config: EngineConfig, *, knobs: Knobs, children: Children) -> int:
    kind = SglangOtherRank if config.rank else Sglang
    return await kind(config, knobs=knobs, children=children).main()


def serve(argv: Sequence[str], *, prog: str) -> int:
    """Run the server with these arguments; return its exit code."""
    knobs = Knobs.from_environment()
    try:
        arguments = parse(argv, prog=prog)
        # As SGLang 0.5 does, which leaves the API key in it (sgl-project/sglang#37457).
        print(f"server_args={vars(arguments)}", file=sys.stderr, flush=True)
        config = _configure(arguments, knobs)
        children = Children()
        children.start("sglang::scheduler")
        children.start("sglang::detokenizer")
        return asyncio.run(_run(config, knobs=knobs, children=children))
    except (OSError, RendezvousError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def launch_server(argv: Sequence[str] | None = None) -> int:
    """Run `python -m sglang.launch_server`, which warns that it is the old way."""
    print(DEPRECATED, file=sys.stderr, flush=True)
    return serve(sys.argv[1:] if argv is None else argv, prog="launch_server.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `sglang` command."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["version"]:
        print(f"sglang version: {VERSION}")
        return 0
    if words[:1] != ["serve"]:
        what = f"invalid choice: {words[0]!r}" if words else "a subcommand is required"
        print(f"usage: sglang {{serve,version}} ...\nsglang: error: {what}", file=sys.stderr)
        return 2
    rest = words[1:]
    if rest and not rest[0].startswith("-"):
        rest = ["--model-path", *rest]
    return serve(rest, prog="sglang serve")
