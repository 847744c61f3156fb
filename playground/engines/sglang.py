"""`sglang serve` as SGLang 0.5.23 behaves (shutdown and health measured).

What its metrics say of running and waiting requests is late; what they say of HTTP requests is not
(see `generation` and `metrics`). Listens before it is ready and answers 503 then. /health is a real
one-token probe and takes at least a second. SIGTERM to the main process makes /health and /ready
503 at once, still serves, and ends when idle, however long that takes. SIGTERM to the process group
kills the scheduler, which is a crash: streams are cut and the exit code is 137. While it loads it
has no handler for SIGTERM (measured).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import uuid

from . import openai
from .application import Engine, EngineConfig, bearer, bind, constant, empty
from .knobs import Knobs
from .metrics import SGLANG_CONTENT_TYPE, sglang_page
from .processes import Children, kill_self
from .rendezvous import Leader, RendezvousError, follow
from .server import Handler, Request, Response, json_response

VERSION = "0.5.23"
OPEN_PATHS = ("/health", "/ready", "/metrics")
HEALTH_STEP_SECONDS = 1.0
RANK_LOSS_SECONDS = 3.0
# Part of the loading time in which nothing listens yet.
SILENT_SHARE = 0.6


class Sglang(Engine):
    """The HTTP server process of SGLang, with rank 0."""

    def __init__(self, config: EngineConfig, *, knobs: Knobs, children: Children) -> None:
        """Add SGLang's routes."""
        super().__init__(config, knobs=knobs, children=children)
        self.leader: Leader | None = None
        self._started = int(time.time())
        self._unhealthy = False
        model_info = constant(self._model_info)
        server_info = constant(self._server_info)
        flushed = constant(lambda: {"success": True})
        self.routes |= {
            "/health": {"GET": self._health},
            "/health_generate": {"GET": self._health},
            "/ready": {"GET": self._ready},
            "/ping": {"GET": empty},
            "/v1/models": {"GET": constant(self._models)},
            "/model_info": {"GET": model_info},
            "/get_model_info": {"GET": model_info},
            "/server_info": {"GET": server_info},
            "/get_server_info": {"GET": server_info},
            "/v1/loads": {"GET": constant(self._loads)},
            "/flush_cache": {"GET": flushed, "POST": flushed},
        }
        if config.arguments.get("enable_metrics"):
            self.routes["/metrics"] = {"GET": self._metrics}

    async def main(self) -> int:
        """Load, listen, become ready, serve; return the exit code."""
        self.start_watching()
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, self._crash, 0.0)
        await self.load(share=SILENT_SHARE, part=1)
        if self.config.ranks > 1 and self.knobs.rendezvous:
            self.leader = Leader(ranks=self.config.ranks - 1, lost=self.rank_lost)
            await self.leader.gather(
                port=self.config.leader_port, seconds=self.knobs.rendezvous_seconds
            )
        bound = bind(self.config.host, self.config.port, one_family=True)
        await self.server.listen(bound)
        self.log(f"Uvicorn running on http://{self.config.host}:{self.config.port}")
        await self.load(share=1.0 - SILENT_SHARE, part=2)
        self.take_term()
        self.mark_ready()
        self.log("The server is fired up and ready to roll!")
        code = await self.exit_code
        if self.leader is not None:
            await self.leader.dismiss()
        return code

    def log(self, message: str) -> None:
        """Print to standard error with SGLang's time stamp."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        print(f"[{stamp}] {message}", file=sys.stderr, flush=True)

    def error_body(self, status: int, message: str, param: str | None) -> dict[str, object]:
        """Build SGLang's flat error document."""
        kind = {400: "Bad Request", 500: "InternalServerError"}.get(status, str(status))
        return {
            "object": "error",
            "message": message,
            "type": kind,
            "param": param,
            "code": status,
        }

    def stream_error_body(self, status: int, message: str, param: str | None) -> dict[str, object]:
        """Nest the flat document, as SGLang does inside streams."""
        return {"error": self.error_body(status, message, param)}

    def identifier(self) -> str:
        """Name an answer without saying what it is."""
        return uuid.uuid4().hex

    def endpoint(self, path: str) -> str:
        """Name a path as the metrics do: its route, or itself if there is none."""
        if path.startswith("/v1/models/"):
            return "/v1/models/{model:path}"
        return "/metrics" if path.startswith("/metrics") else path

    def check_access(self, request: Request) -> bool:
        """Guard everything but health, readiness and metrics."""
        keys = self.config.api_keys
        return not keys or request.path.startswith(OPEN_PATHS) or bearer(request) in keys

    def check_completion(self, completion: openai.Completion) -> None:
        """Take any model name, also while draining, and no tokens at all."""

    def find_route(self, path: str) -> dict[str, Handler] | None:
        """Know also one model by its name."""
        if path.startswith("/v1/models/"):
            return {"GET": self._one_model}
        return super().find_route(path)

    def terminate(self) -> None:
        """Drain without limit; the first look at what still runs comes at once (measured)."""
        if not self.draining:
            self.draining = True
            self.log(
                "SIGTERM received. signum=None frame=None. Draining requests and shutting down"
            )
            self.run(self._drain())

    def child_lost(self, name: str, pid: int, returncode: int) -> None:
        """Any lost child process is a crash."""
        if not self.dead:
            self.log(
                f"Subprocess {name} (pid={pid}) crashed with exit code {returncode}. "
                "Triggering SIGQUIT for cleanup..."
            )
            self._crash(self.knobs.crash_seconds)

    def rank_lost(self, rank: str) -> None:
        """Crash some seconds later (measured: 3 to 6)."""
        if not self.dead:
            self.log(f"Lost {rank}")
            self._crash(RANK_LOSS_SECONDS)

    def _crash(self, seconds: float) -> None:
        """Stop generating, cut everything after some seconds, exit as if by SIGKILL."""
        self.dead = True
        self.scheduler.stall()

        async def end() -> None:
            await asyncio.sleep(seconds)
            self.log(
                "SIGQUIT received. signum=None, frame=None. It usually means one child failed."
            )
            self.children.kill()
            kill_self()

        self.run(end())

    async def _drain(self) -> None:
        poll = self.knobs.drain_poll_seconds
        while self.scheduler.busy and not self._unhealthy:
            count = self.scheduler.busy
            self.log(f"Gracefully exiting... Remaining number of requests {count}.")
            await asyncio.sleep(poll)
        if not self.dead:
            await self.let_answers_end()
            await asyncio.sleep(self.knobs.teardown_seconds)
            self.finish(0)

    async def _ready(self, _request: Request) -> Response:
        up = self.ready and not self.draining and not self._unhealthy
        return Response(200 if up else 503)

    async def _health(self, _request: Request) -> Response:
        """Probe with one token: 200 after a second, 503 when nothing came back in time."""
        if self.draining or not self.ready:
            return Response(503)
        limit = float(os.environ.get("SGLANG_HEALTH_CHECK_TIMEOUT", "20"))
        until = time.monotonic() + limit
        while time.monotonic() < until:
            await asyncio.sleep(HEALTH_STEP_SECONDS)
            if not self.scheduler.stalled and not self.health_hangs:
                self._unhealthy = False
                return Response(200)
        self.log(f"Health check failed. Server couldn't get a response for last {limit:g} seconds.")
        self._unhealthy = True
        return Response(503)

    async def _metrics(self, _request: Request) -> Response:
        mode = self._disaggregation_mode()
        page = sglang_page(
            self.scheduler.measure(),
            model_name=self.config.served_names[0],
            engine_type="unified" if mode == "null" else mode,
            http=self.http,
        )
        return Response(200, page, SGLANG_CONTENT_TYPE)

    async def _one_model(self, request: Request) -> Response:
        name = request.path.removeprefix("/v1/models/")
        if name == self.config.served_names[0]:
            return json_response(self._model_card())
        error = {
            "message": f"The model '{name}' does not exist",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
        return json_response({"error": error}, status=404)

    def _disaggregation_mode(self) -> str:
        return str(self.config.arguments.get("disaggregation_mode") or "null")

    def _model_card(self) -> dict[str, object]:
        name = self.config.served_names[0]
        return {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "sglang",
            "root": name,
            "parent": None,
            "max_model_len": self.config.context_length,
        }

    def _models(self) -> object:
        return {"object": "list", "data": [self._model_card()]}

    def _model_info(self) -> object:
        arguments = self.config.arguments
        return {
            "model_path": self.config.model,
            "served_model_name": self.config.served_names[0],
            "tokenizer_path": arguments.get("tokenizer_path") or self.config.model,
            "is_generation": True,
            "preferred_sampling_params": None,
            "weight_version": arguments.get("weight_version") or "default",
            "load_format": arguments.get("load_format") or "auto",
            "reasoning_parser": arguments.get("reasoning_parser"),
            "tool_call_parser": arguments.get("tool_call_parser"),
            "disaggregation_mode": self._disaggregation_mode(),
            "has_image_understanding": False,
            "has_audio_understanding": False,
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
        }

    def _server_info(self) -> object:
        arguments = self.config.arguments
        statistics = self.scheduler.measure()
        return {
            "model_path": self.config.model,
            "served_model_name": self.config.served_names[0],
            "tp_size": arguments.get("tp_size") or 1,
            "pp_size": arguments.get("pp_size") or 1,
            "dp_size": arguments.get("dp_size") or 1,
            "nnodes": self.config.ranks,
            "node_rank": self.config.rank,
            "host": self.config.host,
            "port": self.config.port,
            "version": VERSION,
            # All its settings, this one too (sgl-project/sglang#30166).
            "api_key": next(iter(self.config.api_keys), None),
            "weight_version": arguments.get("weight_version") or "default",
            "disaggregation_mode": self._disaggregation_mode(),
            "max_running_requests": self.config.max_running,
            "max_total_num_tokens": statistics.token_capacity,
            "internal_states": [{"last_gen_throughput": statistics.throughput}],
        }

    def _loads(self) -> object:
        statistics = self.scheduler.measure()
        load = {
            "dp_rank": 0,
            "num_running_reqs": statistics.shown_running,
            "num_waiting_reqs": statistics.shown_waiting,
            "num_total_reqs": statistics.shown_running + statistics.shown_waiting,
            "num_used_tokens": statistics.tokens_held,
            "max_total_num_tokens": statistics.token_capacity,
            "token_usage": statistics.cache_use,
            "gen_throughput": statistics.throughput,
        }
        return {"timestamp": time.time(), "version": VERSION, "loads": [load]}


class SglangOtherRank(Sglang):
    """A rank above 0: its dummy server says healthy from the start, and SIGTERM is ignored."""

    def __init__(self, config: EngineConfig, *, knobs: Knobs, children: Children) -> None:
        """Keep only the routes of the dummy server."""
        super().__init__(config, knobs=knobs, children=children)
        self.routes = {path: {"GET": empty} for path in ("/health", "/health_generate", "/ping")}

    async def main(self) -> int:
        """Serve the dummy routes and stay with rank 0; return the exit code."""
        self.start_watching()
        self.take_term()
        self.ready = True
        bound = bind(self.config.host, self.config.port, one_family=True)
        await self.server.listen(bound)
        self.log(f"Dummy health check server started at {self.config.host}:{self.config.port}")
        if self.knobs.rendezvous:
            self.run(self._stay())
        return await self.exit_code

    def terminate(self) -> None:
        """Ignore SIGTERM (measured)."""

    def find_route(self, path: str) -> dict[str, Handler] | None:
        """Know nothing but the dummy routes."""
        return self.routes.get(path)

    def check_access(self, request: Request) -> bool:
        """Guard nothing."""
        return True

    async def _stay(self) -> None:
        config = self.config
        try:
            wanted = await follow(
                host=config.leader_host,
                port=config.leader_port,
                rank=config.rank,
                seconds=self.knobs.rendezvous_seconds,
            )
        except RendezvousError as error:
            self.log(f"RuntimeError: {error}")
            self.finish(1)
            return
        if wanted:
            self.finish(0)
        else:
            self.rank_lost("node rank 0")
