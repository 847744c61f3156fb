"""A process that "writes" whenever its elector lets it: one line per write, with the time.

It also says each time that it has looked at the Lease and waits: a machine that is slow slows that
down too, so tests count looks instead of seconds.

Run by `test_leader_election.py` as a process of its own, so that it can be killed and stopped.
"""

import asyncio
import sys

from isthmus.apiserver.client import KubernetesApiServer
from isthmus.apiserver.connection import Connection
from isthmus.apiserver.election import Candidate, ElectionTimes, LeaderElector, uptime
from isthmus.errors import NotLeaderError

LOOKS = 8
"""In the time of one lease."""


async def _pause(seconds: float) -> None:
    print("look", uptime(), flush=True)
    await asyncio.sleep(seconds)


async def main(kubeconfig: str, namespace: str, identity: str, duration: float) -> None:
    api = await KubernetesApiServer.connect(Connection(kubeconfig=kubeconfig), timeout=5)
    elector = LeaderElector(
        api,
        candidate=Candidate(namespace=namespace, name="isthmus", identity=identity),
        times=ElectionTimes(
            lease_duration=duration,
            renew_interval=duration / LOOKS,
            request_timeout=duration / 10,
            renew_deadline=duration * 2 / 3,
        ),
        sleep=_pause,
    )
    print("candidate", uptime(), flush=True)
    await elector.acquire()
    keeping = asyncio.create_task(elector.keep())
    stopping = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    try:
        while not keeping.done() and not stopping.done():
            elector.check()
            print("write", uptime(), flush=True)
            await asyncio.sleep(0.01)
    except NotLeaderError:
        print("refused", uptime(), flush=True)
    if stopping.done():
        keeping.cancel()
        await elector.release()
        print("released", uptime(), flush=True)
    await api.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
