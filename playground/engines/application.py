"""What both simulated engines have in common: routes, completions, loading, injected faults.

`vllm.py` and `sglang.py` derive from `Engine` and say what differs: who may call, what health
means, and what SIGTERM, a lost child process or a lost rank lead to.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import dataclasses
import hashlib
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass

from . import openai
from .generation import EngineStoppedError, Job, Scheduler
from .knobs import Knobs
from .metrics import HttpCounts
from .processes import Children
from .server import Handler, HttpServer, Request, Response, json_response

QUIET_PATHS = frozenset({"/health", "/ready", "/metrics", "/ping"})


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the command line and the environment of an engine say, in one shape for both."""

    name: str
    version: str
    model: str
    served_names: tuple[str, ...]
    host: str
    port: int
    context_length: int
    max_running: int
    stream_interval: int
    api_keys: tuple[str, ...]
    keep_alive_seconds: float
    ranks: int
    rank: int
    leader_host: str
    leader_port: int
    arguments: Mapping[str, object]
    decode_log_interval: int = 40
    default_model_name: str = ""

    @property
    def fingerprint(self) -> str:
        """Engine, version and a hash of the settings, as in `system_fingerprint`."""
        digest = hashlib.sha256(repr(sorted(self.arguments.items())).encode()).hexdigest()
        return f"{self.name.lower()}-{self.version}-{digest[:8]}"


class Engine(abc.ABC):
    """One engine process from load to exit."""

    def __init__(self, config: EngineConfig, *, knobs: Knobs, children: Children) -> None:
        """Prepare; children must have been forked already."""
        self.config = config
        self.knobs = knobs
        self.children = children
        self.scheduler = Scheduler(
            limit=config.max_running,
            context_length=config.context_length,
            knobs=knobs,
            decode_log_interval=config.decode_log_interval,
        )
        self.http = HttpCounts()
        self.server = HttpServer(
            self.handle,
            keep_alive_seconds=config.keep_alive_seconds,
            access_log=self.log_access,
            begun=self._begun,
            ended=self._ended,
        )
        self.ready = False
        self.draining = False
        self.dead = False
        self.exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._ready_since = 0.0
        self._random: random.Random = knobs.randomness()
        self._tasks: set[asyncio.Task[None]] = set()
        self.routes: dict[str, dict[str, Handler]] = {
            "/v1/chat/completions": {"POST": self._chat},
            "/v1/completions": {"POST": self._complete},
        }

    # What each engine says for itself.

    @abc.abstractmethod
    def log(self, message: str) -> None:
        """Print a line in the engine's own log format."""

    @abc.abstractmethod
    def error_body(self, status: int, message: str, param: str | None) -> dict[str, object]:
        """Build the engine's error document."""

    @abc.abstractmethod
    def stream_error_body(self, status: int, message: str, param: str | None) -> dict[str, object]:
        """Build the document of an error event in a stream."""

    @abc.abstractmethod
    def check_access(self, request: Request) -> bool:
        """Tell whether the API key, if one is set, allows this request."""

    @abc.abstractmethod
    def check_completion(self, completion: openai.Completion) -> None:
        """Raise RejectedError for a completion that the engine would not start."""

    @abc.abstractmethod
    def terminate(self) -> None:
        """React to SIGTERM after the engine was loaded."""

    @abc.abstractmethod
    def child_lost(self, name: str, pid: int, returncode: int) -> None:
        """React to the end of a child process."""

    @abc.abstractmethod
    def rank_lost(self, rank: str) -> None:
        """React to the loss of another rank."""

    def identifier(self) -> str | None:
        """Name an answer; None for the way of OpenAI."""
        return None

    def endpoint(self, path: str) -> str:
        """Name a path in the counts of requests."""
        return path

    def _begun(self, request: Request) -> None:
        self.http.begin(self.endpoint(request.path), request.method)

    def _ended(self, request: Request) -> None:
        self.http.end(self.endpoint(request.path), request.method)

    # Life.

    def start_watching(self) -> None:
        """Take over SIGINT and the children; SIGTERM stays as it is until `take_term`.

        The kernel drops a SIGTERM that process 1 of a container has no handler for, so where a
        handler is missing matters there.
        """
        self._take(signal.SIGINT)
        self.children.watch(self.child_lost)

    def take_term(self) -> None:
        """From now on there is a handler for SIGTERM."""
        self._take(signal.SIGTERM)

    def _take(self, number: int) -> None:
        asyncio.get_running_loop().add_signal_handler(number, self._signalled, number)

    def mark_ready(self) -> None:
        """Begin to serve, and start the clock of the injected faults."""
        self.ready = True
        self._ready_since = time.monotonic()
        if self.knobs.crash_after_seconds >= 0:
            self.run(self._crash_later(self.knobs.crash_after_seconds))

    def finish(self, code: int) -> None:
        """End the process with this exit code."""
        if not self.exit_code.done():
            self.exit_code.set_result(code)

    def run(self, work: Coroutine[object, object, None]) -> None:
        """Run something beside the server."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def load(self, *, share: float, part: int) -> None:
        """Spend a share of the loading time, in part 1 or 2; fail or hang there if told to."""
        await asyncio.sleep(self.knobs.load_seconds * share)
        if self.knobs.exit_at_load >= 0:
            self.log("RuntimeError: told to fail by SIMULATOR_EXIT_AT_LOAD")
            self.children.kill()
            leave(self.knobs.exit_at_load)
        if self.knobs.hang_at_load == part:
            await asyncio.Event().wait()

    @property
    def health_hangs(self) -> bool:
        """Whether the health route is told to hang by now."""
        after = self.knobs.hang_health_after_seconds
        return after >= 0 and time.monotonic() - self._ready_since >= after

    async def let_answers_end(self, seconds: float = 2.0) -> None:
        """Give answers that are at their end the time to be written."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.server.quiet.wait()

    def interrupt_loading(self, number: int) -> None:
        """React to a signal before the engine is ready: end at once."""
        self.children.kill()
        leave(128 + number)

    def _signalled(self, number: int) -> None:
        if self.ready:
            self.terminate()
        else:
            self.interrupt_loading(number)

    async def _crash_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.children.kill()

    # Requests.

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        # Neither engine guards OPTIONS, which leads nowhere.
        if request.method != "OPTIONS" and not self.check_access(request):
            return json_response({"error": "Unauthorized"}, status=401)
        methods = self.find_route(request.path)
        if methods is None:
            return json_response({"detail": "Not Found"}, status=404)
        handler = methods.get(request.method)
        if handler is None:
            body = json_response({"detail": "Method Not Allowed"}, status=405)
            return Response(405, body.body, body.content_type, {"allow": ", ".join(methods)})
        return await handler(request)

    def find_route(self, path: str) -> dict[str, Handler] | None:
        """Return the handlers of a path by method, None if there is no such path."""
        return self.routes.get("/metrics" if path == "/metrics/" else path)

    def log_access(self, request: Request, status: int) -> None:
        """Log a request as uvicorn does, but not the probes."""
        if request.path not in QUIET_PATHS:
            self.log(f'{request.client} - "{request.method} {request.path} HTTP/1.1" {status}')

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, chat=True)

    async def _complete(self, request: Request) -> Response:
        return await self._answer(request, chat=False)

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        try:
            kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
            if kind != "application/json":
                raise openai.RejectedError(
                    400, "Unsupported Media Type: Only 'application/json' is allowed"
                )
            completion = openai.parse(request.body, chat=chat)
            self.check_completion(completion)
            job = self._plan(completion)
            self._inject_faults()
            return await self._generate(completion, job)
        except openai.RejectedError as error:
            body = self.error_body(error.status, str(error), error.param)
            return json_response(body, status=error.status)
        except EngineStoppedError as error:
            return json_response(self.error_body(500, str(error), None), status=500)

    def _plan(self, completion: openai.Completion) -> Job:
        limit = self.config.context_length
        room = limit - completion.prompt_tokens
        wanted = room if completion.max_tokens is None else completion.max_tokens
        if room < 1 or wanted > room:
            raise openai.RejectedError(
                400,
                f"This model's maximum context length is {limit} tokens. However, you requested "
                f"{wanted} output tokens and your prompt contains {completion.prompt_tokens} "
                f"input tokens, for a total of {wanted + completion.prompt_tokens} tokens. "
                "Please reduce the length of the input prompt or the number of requested output "
                "tokens.",
                "max_tokens" if completion.max_tokens else "messages",
            )
        natural = max(self.knobs.output_tokens, completion.min_tokens, 1)
        count = wanted if completion.ignore_eos else min(natural, wanted)
        reason = "stop" if count == natural and not completion.ignore_eos else "length"
        return Job(self.greeting(), completion.prompt_tokens, count, reason)

    def greeting(self) -> str:
        """Say which engine, model, host and process answer."""
        model = self.config.served_names[0]
        return (
            f"Hello from {self.config.name} on {socket.gethostname()} ({_surroundings()}, "
            f"process {os.getpid()}), model {model}, version {self.config.version} ."
        )

    def _inject_faults(self) -> None:
        knobs, count = self.knobs, self.scheduler.taken + 1
        if 0 <= knobs.crash_after_requests < count:
            self.children.kill()
            self.scheduler.stall()
        if 0 <= knobs.hang_after_requests < count:
            self.scheduler.stall()
        if self._random.random() < knobs.error_rate:
            raise EngineStoppedError("Injected error (SIMULATOR_ERROR_RATE)")

    async def _generate(self, completion: openai.Completion, job: Job) -> Response:
        named = completion.model or self.config.default_model_name or self.config.served_names[0]
        answer = openai.envelope(
            dataclasses.replace(completion, model=named),
            identifier=self.identifier(),
            fingerprint=self.config.fingerprint,
        )
        tokens = self.scheduler.generate(job)
        if completion.stream:
            if self._random.random() < self.knobs.stream_error_rate:
                tokens = _failing(tokens, after=max(1, job.output_tokens // 2))
            events = openai.stream(
                answer,
                job=job,
                tokens=tokens,
                interval=self.config.stream_interval,
                error_body=self.stream_error_body,
            )
            return Response(200, content_type="text/event-stream; charset=utf-8", stream=events)
        text = "".join([token async for token in tokens])
        body = openai.whole(
            answer, text=text, tokens=job.output_tokens, finish_reason=job.finish_reason
        )
        return json_response(body)


async def _failing(tokens: AsyncGenerator[str, None], *, after: int) -> AsyncGenerator[str, None]:
    """Pass on some tokens, then fail as an engine does in the middle of a stream."""
    count = 0
    try:
        async for token in tokens:
            if count == after:
                raise EngineStoppedError("Injected error (SIMULATOR_STREAM_ERROR_RATE)")
            count += 1
            yield token
    finally:
        await tokens.aclose()


def bind(host: str, port: int, *, one_family: bool = False) -> socket.socket:
    """Bind without listening: connections are refused until the engine listens.

    Args:
        host: address; `::` is that of both families unless `one_family`.
        port: of it.
        one_family: as asyncio and uvloop bind, which SGLang leaves it to; vLLM binds by itself.

    Raises:
        OSError: the address is taken or not of this host.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if one_family and family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    bound.bind((host, port))
    return bound


def bearer(request: Request) -> str:
    """Return the token of the Authorization header, empty if there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


async def empty(_request: Request) -> Response:
    """Answer 200 without a body."""
    return Response(200)


def constant(make: Callable[[], object]) -> Callable[[Request], Awaitable[Response]]:
    """Make a handler that answers with the JSON document `make` returns."""

    async def handler(_request: Request) -> Response:
        return json_response(make())

    return handler


def _surroundings() -> str:
    if "SLURM_JOB_ID" in os.environ:
        return f"SLURM job {os.environ['SLURM_JOB_ID']}"
    if "KUBERNETES_SERVICE_HOST" in os.environ or "KUBERNETES_PORT" in os.environ:
        return "Kubernetes pod"
    return "plain process"


def leave(code: int) -> None:
    """End the process at once, with its output written."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
