"""vLLM (facts of release 0.33.0).

`/health` is instant and answers 503 only when the engine is dead. Without `--shutdown-timeout`
SIGTERM aborts the engine and leaves streams hanging until SIGKILL (measured on 0.32.0), so it is
always given. With it the engine finishes what runs, but `/health` stays 200 while every new request
gets 500: it must be out of rotation before. TERM to its whole process group cuts its streams.

Its gauges of running and waiting requests are right within half a second (measured on 0.32.0).

With a key, what begins with `/v1`, `/v2`, `/inference` or `/cohere` is guarded, and nothing else:
`/invocations` answers chats and completions, `/tokenize` and `/detokenize` work for anybody, and
`/scale_elastic_ep` reaches its handler (measured on 0.32.0; prefixes and the rest of `open_paths`
by the source of 0.33.0, without what comes with development mode, profiling or pooling models).
The key comes by `VLLM_API_KEY`, which it does not write into its log.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from isthmus.api.names import identity_model_name
from isthmus.engines.base import LaunchRequest, only_one_node
from isthmus.engines.listen_argument import listen_argument
from isthmus.engines.metrics import LoadRule
from isthmus.engines.paths import EnginePath
from isthmus.engines.questions import (
    METRICS,
    MODELS,
    Answer,
    ProbeVerdict,
    Question,
    first_failure,
    model_listed,
    served_models,
)
from isthmus.engines.vllm_paths import VLLM_PATHS

_OPEN = (
    "/health",
    "/ping",
    "/metrics",
    "/version",
    "/load",
    "/kv_event_sources",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/invocations",
    "/tokenize",
    "/detokenize",
    "/generative_scoring",
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
)

_LOAD = LoadRule(gauges=("vllm:num_requests_running", "vllm:num_requests_waiting"), proof=0.5)


@dataclass(frozen=True, slots=True)
class Vllm:
    """`vllm serve MODEL …`."""

    name: str = "vllm"
    program: str = "vllm"
    health_path: str = "/health"
    readiness_path: str = "/health"
    health_timeout: int = 5
    metrics: Question = METRICS
    load: LoadRule = _LOAD
    open_paths: tuple[str, ...] = _OPEN
    paths: tuple[EnginePath, ...] = VLLM_PATHS
    key_variable: str | None = "VLLM_API_KEY"

    def command(
        self, request: LaunchRequest, *, rank: int = 0, size: int = 1, rendezvous: str | None = None
    ) -> tuple[str, ...]:
        """Command line; the attempt is reported as one more served name."""
        only_one_node(rank=rank, size=size, rendezvous=rendezvous)
        names = request.served_names
        if request.attempt is not None:
            names = (*names, identity_model_name(request.attempt))
        revision = () if request.revision is None else (f"--revision={request.revision}",)
        return (
            self.program,
            "serve",
            request.model,
            listen_argument(request.listen),
            f"--port={request.port}",
            "--served-model-name",
            *names,
            f"--shutdown-timeout={max(1, request.drain_seconds)}",
            *revision,
            *request.args,
        )

    def probes(self, *, full: bool) -> tuple[Question, ...]:
        """Health alone, or with the models: its attempt is one of them."""
        if not full:
            return (Question(self.readiness_path),)
        return Question(self.health_path), MODELS

    def judge(self, answers: Sequence[Answer], *, model: str, attempt: str) -> ProbeVerdict:
        """See `EngineProfile`."""
        return first_failure(answers, identity=partial(_identity, model=model, attempt=attempt))


def _identity(answer: Answer, *, model: str, attempt: str) -> ProbeVerdict:
    served, name = served_models(answer.body), identity_model_name(attempt)
    found = model_listed(served, model=model)
    if not found.healthy or name in served:
        return found
    return ProbeVerdict("WrongAttempt", f"does not serve {name}")
