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

from dataclasses import dataclass

from isthmus.api.names import identity_model_name
from isthmus.engines.base import LaunchRequest
from isthmus.engines.metrics import LoadRule
from isthmus.engines.paths import EnginePath
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
    health_path: str = "/health"
    readiness_path: str = "/health"
    health_timeout: int = 5
    load: LoadRule = _LOAD
    open_paths: tuple[str, ...] = _OPEN
    paths: tuple[EnginePath, ...] = VLLM_PATHS
    identity_paths: tuple[str, ...] = ("/v1/models",)
    key_variable: str | None = "VLLM_API_KEY"

    def command(self, request: LaunchRequest) -> tuple[str, ...]:
        """Command line; the attempt is reported as one more served name."""
        names = request.served_names
        if request.attempt is not None:
            names = (*names, identity_model_name(request.attempt))
        revision = () if request.revision is None else (f"--revision={request.revision}",)
        return (
            "vllm",
            "serve",
            request.model,
            f"--host={request.listen}",
            f"--port={request.port}",
            "--served-model-name",
            *names,
            f"--shutdown-timeout={max(1, request.drain_seconds)}",
            *revision,
            *request.args,
        )
