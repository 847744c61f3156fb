"""The instance that waits for the Lease answers its probes; the metrics are served as they are."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from isthmus.api.reasons import Reason
from isthmus.loop.standby import standing_by
from isthmus.small_server import serving
from isthmus.telemetry.metrics import PATH, Metrics
from tests.ports import free_port


async def test_answers_while_it_waits_and_then_frees_the_port() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/healthz"
    async with httpx.AsyncClient(trust_env=False) as client:
        async with standing_by(port):
            assert (await client.get(url)).text == "standing by\n"
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
        async with standing_by(port):  # as the watch does next
            assert (await client.get(url)).status_code == 200


async def test_no_port_no_endpoint() -> None:
    async with standing_by(None):
        pass


async def test_metrics_are_read_as_prometheus_reads_them() -> None:
    port, metrics = free_port(), Metrics()
    metrics.emit(
        {"kind": "SlurmJob"}, type="Normal", reason=Reason.JOB_SUBMITTED, message="as job 7"
    )
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        serving(port, {PATH: metrics.page}),
    ):
        answer = await client.get(f"http://127.0.0.1:{port}{PATH}")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.labels["kind"], sample.labels["reason"]): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == "isthmus_transitions_total"
    }
    assert found["SlurmJob", "JobSubmitted"] == 1
    assert found["ModelDeployment", "RolloutComplete"] == 0
