"""SGLang (facts of release 0.5.23).

`/health` generates one token and takes at least a second, up to 20 s on a loaded engine; `/ready`
is instant and answers 503 until the engine is up and while it drains. It binds to loopback unless
`--host` is given, exposes metrics only with `--enable-metrics`, and after SIGTERM to its main
process waits without limit until it is idle. TERM to its whole process group is a crash that cuts
its streams.

Its gauges of running and waiting requests are written when a prefill batch is scheduled, then with
the number that ran *before* it, and after every 40th decode step: a request alone is on no gauge
for its whole prefill and up to 40 tokens more, nor in `/v1/loads` (measured on 0.5.23). Its HTTP
server counts requests by endpoint from their head to the last byte of the answer; that count is
right at once. A release without it gets a longer proof: 30 s are a prefill of 10 s and 40 tokens at
2 per second. What is longer SGLang finishes after TERM, for which it waits until it is idle.

With a key everything is guarded but `/health`, `/ready` and `/metrics`. It reads the key from the
file of `--config FILE` (two words, and the name must end in .yaml) and merges it with the command
line inside the process. It then writes all its settings, the key among them, into its log
(sgl-project/sglang#37457), so the batch script takes the key out of what it prints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from isthmus.api.texts import one_line
from isthmus.engines.base import LaunchRequest, only_one_node
from isthmus.engines.listen_argument import listen_argument
from isthmus.engines.metrics import LoadRule
from isthmus.engines.paths import EnginePath
from isthmus.engines.questions import (
    HEALTHY,
    METRICS,
    MODELS,
    Answer,
    ProbeVerdict,
    Question,
    first_failure,
    json_field,
    model_listed,
    served_models,
)
from isthmus.engines.sglang_paths import SGLANG_PATHS

_NO_WORK = (
    "/metrics",
    "/health",
    "/health_generate",
    "/ready",
    "/ping",
    "/v1/models",
    "/v1/models/{model:path}",
    "/v1/loads",
    "/loads",
    "/model_info",
    "/get_model_info",
    "/server_info",
    "/get_server_info",
)
_MODEL_INFO = Question("/model_info", guarded=True)
_LOAD = LoadRule(
    gauges=("sglang:num_running_reqs", "sglang:num_queue_reqs"),
    proof=0.5,
    active="sglang:http_requests_active",
    apart_from=_NO_WORK,
    proof_without=30.0,
)


@dataclass(frozen=True, slots=True)
class Sglang:
    """`sglang serve --model-path MODEL …`."""

    name: str = "sglang"
    program: str = "sglang"
    health_path: str = "/health"
    readiness_path: str = "/ready"
    health_timeout: int = 20
    metrics: Question = METRICS
    load: LoadRule = _LOAD
    open_paths: tuple[str, ...] = ("/health", "/health_generate", "/ready", "/metrics")
    paths: tuple[EnginePath, ...] = SGLANG_PATHS
    key_variable: str | None = None

    def command(
        self, request: LaunchRequest, *, rank: int = 0, size: int = 1, rendezvous: str | None = None
    ) -> tuple[str, ...]:
        """Command line; the attempt is reported as `weight_version` in `/model_info`.

        SGLang takes one served name, so only the first one is given.
        """
        only_one_node(rank=rank, size=size, rendezvous=rendezvous)
        revision = () if request.revision is None else (f"--revision={request.revision}",)
        key = () if request.key_file is None else ("--config", request.key_file)
        attempt = () if request.attempt is None else (f"--weight-version={request.attempt}",)
        return (
            self.program,
            "serve",
            f"--model-path={request.model}",
            listen_argument(request.listen),
            f"--port={request.port}",
            f"--served-model-name={request.served_names[0]}",
            "--enable-metrics",
            *revision,
            *attempt,
            *key,
            *request.args,
        )

    def probes(self, *, full: bool) -> tuple[Question, ...]:
        """Readiness alone, which costs nothing; or a real token, then the model and the attempt.

        So a busy worker is not asked for a token every few seconds, and one whose scheduler hangs
        is still found by the next full probe.
        """
        if not full:
            return (Question(self.readiness_path),)
        return Question(self.health_path), MODELS, _MODEL_INFO

    def judge(self, answers: Sequence[Answer], *, model: str, attempt: str) -> ProbeVerdict:
        """See `EngineProfile`."""
        return first_failure(answers, identity=partial(_identity, model=model, attempt=attempt))


def _identity(answer: Answer, *, model: str, attempt: str) -> ProbeVerdict:
    if answer.question == MODELS:
        return model_listed(served_models(answer.body), model=model)
    version = json_field(answer.body, "weight_version")
    if version == attempt:
        return HEALTHY
    found = one_line(version, limit=60) if isinstance(version, str) else ""
    return ProbeVerdict("WrongAttempt", f"is attempt {found or 'unknown'} instead of {attempt}")
