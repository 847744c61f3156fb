"""vLLM (facts of release 0.33.0).

`/health` is instant and answers 503 only when the engine is dead. Without `--shutdown-timeout`
SIGTERM aborts the engine and leaves streams hanging until SIGKILL (measured on 0.32.0), so it is
always given. With it the engine finishes what runs, but `/health` stays 200 while every new request
gets 500: it must be out of rotation before. TERM to its whole process group cuts its streams.

With a key, `/v1` is guarded, while `/health`, `/metrics` and `/version` stay open.
The key comes by `VLLM_API_KEY`, which it does not write into its log.
"""

from dataclasses import dataclass

from isthmus.api.names import identity_model_name
from isthmus.engines.base import LaunchRequest


@dataclass(frozen=True, slots=True)
class Vllm:
    """`vllm serve MODEL …`."""

    name: str = "vllm"
    health_path: str = "/health"
    readiness_path: str = "/health"
    health_timeout: int = 5
    load_gauges: tuple[str, ...] = ("vllm:num_requests_running", "vllm:num_requests_waiting")
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
            "--host=0.0.0.0",
            f"--port={request.port}",
            "--served-model-name",
            *names,
            f"--shutdown-timeout={max(1, request.drain_seconds)}",
            *revision,
            *request.args,
        )
