"""SGLang (facts of release 0.5.23).

`/health` generates one token and takes at least a second, up to 20 s on a loaded engine; `/ready`
is instant and answers 503 until the engine is up and while it drains. It binds to loopback unless
`--host` is given, exposes metrics only with `--enable-metrics`, and after SIGTERM to its main
process waits without limit until it is idle. TERM to its whole process group is a crash that cuts
its streams.
"""

from dataclasses import dataclass

from isthmus.engines.base import LaunchRequest


@dataclass(frozen=True, slots=True)
class Sglang:
    """`sglang serve --model-path MODEL …`."""

    name: str = "sglang"
    health_path: str = "/health"
    readiness_path: str = "/ready"
    health_timeout: int = 20
    load_gauges: tuple[str, ...] = ("sglang:num_running_reqs", "sglang:num_queue_reqs")

    def command(self, request: LaunchRequest) -> tuple[str, ...]:
        """Command line; the attempt is reported as `weight_version` in `/model_info`.

        SGLang takes one served name, so only the first one is given.
        """
        revision = () if request.revision is None else (f"--revision={request.revision}",)
        attempt = () if request.attempt is None else (f"--weight-version={request.attempt}",)
        return (
            "sglang",
            "serve",
            f"--model-path={request.model}",
            "--host=0.0.0.0",
            f"--port={request.port}",
            f"--served-model-name={request.served_names[0]}",
            "--enable-metrics",
            *revision,
            *attempt,
            *request.args,
        )
