"""`vllm serve` as vLLM 0.33.0 behaves, measured on 0.32.0 where the text says "measured".

Listens only when ready. SIGTERM with `--shutdown-timeout N` finishes what runs and answers new
requests with 500 while /health stays 200; with the default 0 the engine is killed, streams stall
and the process waits for its connections until SIGKILL (both measured). A dead EngineCore makes
/health 503 and ends the server some seconds later. Its processes outlive a main process that is
killed. Only what begins with `GUARDED` wants the key.

SIGTERM ends it at once in the first part of loading; while EngineCore starts, its handler hangs
until SIGKILL (measured once). A world of several processes needs room in /dev/shm (measured).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import time
import zlib

from . import openai
from .application import Engine, EngineConfig, bearer, bind, constant, leave
from .generation import EngineStoppedError
from .knobs import Knobs
from .metrics import VLLM_CONTENT_TYPE, vllm_page
from .processes import Children
from .rendezvous import Leader, RendezvousError, follow
from .server import Request, Response, json_response

VERSION = "0.33.0"
GUARDED = ("/v1", "/v2", "/inference", "/cohere")
SHUT_DOWN = "cannot schedule new futures after shutdown"
ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
# Time in which SIGTERM to the whole group shows by the child's own death; without it, killing the
# child ourselves could not be told from it.
GROUP_SIGNAL_SECONDS = 0.3
RANK_LOSS_SECONDS = 2.0
ERROR_TYPES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}


SHARED_MEMORY = "/dev/shm"


class SharedMemoryError(RuntimeError):
    """/dev/shm has too little room for what the worker processes share."""


class Vllm(Engine):
    """The API server process of vLLM."""

    def __init__(self, config: EngineConfig, *, knobs: Knobs, children: Children) -> None:
        """Add vLLM's routes."""
        super().__init__(config, knobs=knobs, children=children)
        self.leader: Leader | None = None
        self._started = int(time.time())
        self._engine_killed = False
        self._engine_starts = False
        self._stuck = False
        self._page = b""
        self._page_at = -math.inf
        self.routes |= {
            "/health": {"GET": self._health},
            "/ping": {"GET": self._health, "POST": self._health},
            "/v1/models": {"GET": constant(self._models)},
            "/version": {"GET": constant(lambda: {"version": VERSION})},
            "/load": {"GET": constant(self._load_document)},
            "/metrics": {"GET": self._metrics},
            "/kv_event_sources": {"GET": constant(lambda: {"sources": []})},
            "/invocations": {"POST": self._invoke},
            "/tokenize": {"POST": self._tokenize},
            "/v1/tokenize": {"POST": self._tokenize},
            "/detokenize": {"POST": self._detokenize},
            "/v1/detokenize": {"POST": self._detokenize},
            "/generative_scoring": {"POST": self._score},
            "/scale_elastic_ep": {"POST": self._scale},
            "/is_scaling_elastic_ep": {"POST": constant(_not_scaling)},
            "/docs": {"GET": _page_of_docs},
            "/redoc": {"GET": _page_of_docs},
            "/openapi.json": {"GET": constant(self._openapi)},
        }

    async def main(self) -> int:
        """Load, listen, serve; return the exit code."""
        config = self.config
        self.start_watching()
        self.take_term()
        bound = bind(config.host, config.port)
        await self.load(share=0.5, part=1)
        self._engine_starts = True
        self.log(f"Initializing a V1 LLM engine (v{VERSION})")
        self._share_memory()
        if config.ranks > 1 and self.knobs.rendezvous:
            self.leader = Leader(ranks=config.ranks - 1, lost=self.rank_lost)
            await self.leader.gather(port=config.leader_port, seconds=self.knobs.rendezvous_seconds)
        await self.load(share=0.5, part=2)
        if self._stuck:
            await asyncio.Event().wait()
        await self.server.listen(bound)
        self.mark_ready()
        host = f"[{config.host}]" if ":" in config.host else config.host or "0.0.0.0"
        self.log(f"Starting vLLM server on http://{host}:{config.port}")
        self.log("Application startup complete.")
        code = await self.exit_code
        if self.leader is not None:
            await self.leader.dismiss()
        return code

    def log(self, message: str) -> None:
        """Print to standard output with the prefix of the API server."""
        stamp = time.strftime("%m-%d %H:%M:%S")
        print(f"(APIServer pid={os.getpid()}) INFO {stamp} {message}", flush=True)

    def error_body(self, status: int, message: str, param: str | None) -> dict[str, object]:
        """Build vLLM's nested error document."""
        kind = ERROR_TYPES.get(status, message)
        return {"error": {"message": message, "type": kind, "param": param, "code": status}}

    stream_error_body = error_body

    def check_access(self, request: Request) -> bool:
        """Guard the API prefixes only."""
        keys = self.config.api_keys
        return not keys or not request.path.startswith(GUARDED) or bearer(request) in keys

    def check_completion(self, completion: openai.Completion) -> None:
        """Refuse unknown models, and everything once the engine is gone or going."""
        if completion.model and completion.model not in self.config.served_names:
            message = f"The model `{completion.model}` does not exist."
            raise openai.RejectedError(404, message, "model")
        if completion.max_tokens == 0:
            raise openai.RejectedError(400, "max_tokens must be at least 1, got 0.", "max_tokens")
        if self.dead:
            raise EngineStoppedError(ENGINE_DEAD)
        if self.draining:
            raise EngineStoppedError(SHUT_DOWN)

    def terminate(self) -> None:
        """Drain for up to `--shutdown-timeout` seconds, or hang if it is 0."""
        if not self.draining:
            self.draining = True
            self.run(self._shut_down())

    def child_lost(self, name: str, pid: int, returncode: int) -> None:
        """Without EngineCore every request fails; the server ends a little later."""
        if self.dead or self._engine_killed:
            return
        self.dead = True
        self.log(f"ERROR {name} (pid {pid}) died unexpectedly, exit code {returncode}.")
        if not self.ready:
            leave(1)
        self.scheduler.stop(EngineStoppedError(ENGINE_DEAD))
        self.run(self._end(0.0 if self.draining else self.knobs.crash_seconds))

    def rank_lost(self, rank: str) -> None:
        """Fail completions at once, /health only by dying two seconds later (measured)."""
        self.log(f"ERROR lost {rank}")
        self.scheduler.stop(EngineStoppedError(ENGINE_DEAD))
        self.run(self._end(RANK_LOSS_SECONDS))

    def interrupt_loading(self, number: int) -> None:
        """End at once, or hang while EngineCore starts."""
        if number == signal.SIGTERM and self._engine_starts and self.knobs.hang_at_term:
            self._stuck = True
            self.log("[shutdown] API server: waiting for the engine core to start")
            return
        super().interrupt_loading(number)

    def _share_memory(self) -> None:
        """The rings of the multiprocessing executor, used by a world of more than one process.

        Raises:
            SharedMemoryError: they do not fit.
        """
        options = self.config.arguments
        world = 1
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            size = options.get(name) or 1
            assert isinstance(size, int)
            world *= size
        space = os.statvfs(SHARED_MEMORY)
        free = space.f_bavail * space.f_frsize >> 20
        needed = self.knobs.shared_memory_mib
        if world > 1 and free < needed:
            raise SharedMemoryError(
                f"Insufficient space in {SHARED_MEMORY} for shared-memory allocation: "
                f"{needed} MiB required, {free} MiB free"
            )

    async def _end(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.let_answers_end()
        self.finish(0)

    async def _shut_down(self) -> None:
        timeout = self.config.arguments.get("shutdown_timeout") or 0
        assert isinstance(timeout, int)
        mode = "drain" if timeout else "abort"
        self.log(f"[shutdown] API server: stopping engine client mode={mode} timeout={timeout}s")
        if timeout:
            await self._drain(timeout)
            return
        await asyncio.sleep(GROUP_SIGNAL_SECONDS)
        if self.dead:
            return
        self._engine_killed = True
        self.scheduler.stall()
        self.children.kill()
        self.server.stop_listening()
        if not self.scheduler.busy:
            self.finish(0)
            return
        self.log("Waiting for connections to close. (CTRL+C to force quit)")

    async def _drain(self, timeout: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.scheduler.idle.wait()
        if not self.dead:
            self.scheduler.stop(EngineStoppedError("aborted", aborted=True))
            await self._end(self.knobs.teardown_seconds)

    async def _health(self, _request: Request) -> Response:
        if self.health_hangs:
            await asyncio.Event().wait()
        return Response(503 if self.dead else 200)

    async def _metrics(self, _request: Request) -> Response:
        now = time.monotonic()
        if now - self._page_at >= self.knobs.metrics_lag_seconds:
            name = self.config.served_names[0]
            self._page = vllm_page(self.scheduler.measure(), model_name=name)
            self._page_at = now
        return Response(200, self._page, VLLM_CONTENT_TYPE)

    async def _invoke(self, request: Request) -> Response:
        """Answer a chat or a completion, whichever the body is: SageMaker's way to ask."""
        body = _document(request)
        return await (self._chat if "messages" in body else self._complete)(request)

    async def _tokenize(self, request: Request) -> Response:
        words = str(_document(request).get("prompt", "")).split()
        tokens = [zlib.crc32(word.encode()) % 32_000 for word in words]
        limit = self.config.context_length
        body = {"count": len(tokens), "max_model_len": limit, "tokens": tokens}
        return json_response(body | {"token_strs": None})

    async def _detokenize(self, request: Request) -> Response:
        tokens = _document(request).get("tokens")
        count = len(tokens) if isinstance(tokens, list) else 0
        return json_response({"prompt": " ".join(["token"] * count)})

    async def _score(self, _request: Request) -> Response:
        """Refuse, as for a body that is none: not simulated any further."""
        return json_response(self.error_body(400, "Field required", "items"), status=400)

    async def _scale(self, request: Request) -> Response:
        if not isinstance(_document(request).get("new_data_parallel_size"), int):
            return json_response({"detail": "new_data_parallel_size is required"}, status=400)
        return json_response({"detail": "Scale failed"}, status=500)

    def _openapi(self) -> object:
        paths: dict[str, dict[str, object]] = {
            path: {method.lower(): {} for method in methods}
            for path, methods in self.routes.items()
            if path not in ("/docs", "/redoc", "/openapi.json", "/metrics")
        }
        return {"openapi": "3.1.0", "info": {"title": "FastAPI"}, "paths": paths}

    def _models(self) -> object:
        return {
            "object": "list",
            "data": [
                {
                    "id": name,
                    "object": "model",
                    "created": self._started,
                    "owned_by": "vllm",
                    "root": self.config.model,
                    "parent": None,
                    "max_model_len": self.config.context_length,
                }
                for name in self.config.served_names
            ],
        }

    def _load_document(self) -> object:
        tracking = self.config.arguments.get("enable_server_load_tracking")
        return {"server_load": self.scheduler.busy if tracking else 0}


def _document(request: Request) -> dict[str, object]:
    """Read a JSON object; empty if it is none."""
    try:
        found = json.loads(request.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _not_scaling() -> object:
    return {"is_scaling_elastic_ep": False}


async def _page_of_docs(_request: Request) -> Response:
    return Response(200, b"<!DOCTYPE html><title>FastAPI</title>", "text/html; charset=utf-8")


class HeadlessVllm(Vllm):
    """A rank without an API server: it opens no port and ends with rank 0 or on SIGTERM."""

    async def main(self) -> int:
        """Join rank 0 and stay; return the exit code."""
        self.start_watching()
        self.take_term()
        self.ready = True
        self.log(f"Launching vLLM (v{VERSION}) headless multiproc executor")
        if self.knobs.rendezvous:
            self.run(self._stay())
        return await self.exit_code

    def terminate(self) -> None:
        """End at once."""
        self.finish(0)

    def child_lost(self, name: str, pid: int, returncode: int) -> None:
        """End with the worker."""
        self.log(f"ERROR {name} (pid {pid}) died unexpectedly, exit code {returncode}.")
        self.finish(1)

    async def _stay(self) -> None:
        config = self.config
        try:
            wanted = await follow(
                host=config.leader_host,
                port=config.leader_port,
                rank=config.rank,
                seconds=self.knobs.rendezvous_seconds,
            )
            self.finish(0 if wanted else 1)
        except RendezvousError as error:
            self.log(f"ERROR {error}")
            self.finish(1)
