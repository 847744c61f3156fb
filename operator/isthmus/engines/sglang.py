"""SGLang (facts of release 0.5.23).

`/health` generates one token and takes at least a second, up to 20 s on a loaded engine; `/ready`
is instant and answers 503 until the engine is up and while it drains. It binds to loopback unless
`--host` is given, exposes metrics only with `--enable-metrics`, and after SIGTERM to its main
process waits without limit until it is idle. TERM to its whole process group is a crash that cuts
its streams.

With a key everything is guarded but `/health`, `/ready` and `/metrics`. It reads the key from the
file of `--config FILE` (two words, and the name must end in .yaml) and merges it with the command
line inside the process. It then writes all its settings, the key among them, into its log
(sgl-project/sglang#37457), so the batch script takes the key out of what it prints.
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
    key_variable: str | None = None

    def command(self, request: LaunchRequest) -> tuple[str, ...]:
        """Command line; the attempt is reported as `weight_version` in `/model_info`.

        SGLang takes one served name, so only the first one is given.
        """
        revision = () if request.revision is None else (f"--revision={request.revision}",)
        key = () if request.key_file is None else ("--config", request.key_file)
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
            *key,
            *request.args,
        )
