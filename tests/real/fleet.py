"""Many deployments at once for the kill tests: churned, looked at in one go, judged one by one.

A look is seven lists and one squeue, however many deployments there are; each of them is then
judged by `Look.agree`, as everywhere else.
"""

import contextlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from playground.errors import PlaygroundError
from playground.operator_process import NAMESPACE, Operator
from tests.real.api import Json
from tests.real.look import LISTS
from tests.real.world import Not, World, deployment, kubernetes_pool, slurm_pool, until

NO_GPUS = {"gpusPerNode": 0}


@dataclass
class Wish:
    """What is asked of one deployment."""

    kind: str
    replicas: int = 1
    variant: int = 0

    @property
    def counts(self) -> dict[str, int]:
        pods = {"k8s": self.replicas, "hpc": 0, "both": 1}[self.kind]
        return {"kubernetes": pods, "slurm": self.replicas - pods}

    def to_object(self, name: str) -> Json:
        pods = kubernetes_pool(worker=NO_GPUS, priority=1)
        jobs = slurm_pool(worker=NO_GPUS)
        pods["engine"]["args"] = [f"--max-model-len={4096 + self.variant}"]
        jobs["engine"]["args"] = [f"--mem-fraction-static=0.8{self.variant}"]
        if self.kind == "both":
            pods["maxReplicas"] = 1
        pools = {"k8s": (pods,), "hpc": (jobs,), "both": (pods, jobs)}[self.kind]
        return deployment(name, *pools, replicas=self.replicas)


@dataclass
class Fleet:
    """Deployments of three kinds, and what is asked of each at present.

    Attributes:
        prefix: of their names, another one for each test.
        supervised: operators that are started again when they have ended, as a Deployment does.
    """

    world: World
    prefix: str
    size: int
    choice: random.Random
    supervised: list[Operator]
    wishes: dict[str, Wish] = field(default_factory=dict)
    restarts: int = 0

    def create(self) -> None:
        for number in range(self.size):
            self.wishes[f"{self.prefix}-{number}"] = Wish(("hpc", "k8s", "both")[number % 3])
        for name, wish in self.wishes.items():
            self.world.apply(wish.to_object(name))

    def churn(self, changes: int) -> None:
        """Change what is asked of some of them; a change that is not acknowledged is none."""
        for _ in range(changes):
            name = self.choice.choice(sorted(self.wishes))
            wish = self.wishes[name]
            # Mostly more or fewer workers; a new revision replaces them all.
            replicas = self.choice.randint(1, 2) + (wish.kind == "both")
            variant = wish.variant + (self.choice.random() < 0.2)
            changed = Wish(wish.kind, replicas, variant)
            with contextlib.suppress(PlaygroundError):
                self.world.apply(changed.to_object(name))
                self.wishes[name] = changed

    def supervise(self) -> None:
        """Start what has ended."""
        for each in self.supervised:
            if not each.running:
                self.restarts += 1
                start_again(each)

    def settle(self, *, timeout: float) -> None:
        """Wait until every one of them is as it should be, and nobody tells another story."""
        self._renew()
        until(self._disagreement, f"all of {self.prefix} agree", timeout=timeout, every=0.5)

    def _renew(self) -> None:
        """Say again what is wished: an unacknowledged change may have been made all the same."""
        for name, wish in self.wishes.items():
            obj = wish.to_object(name)

            def said(obj: Json = obj) -> bool:
                self.world.apply(obj)
                return True

            until(said, f"{name} is patched", timeout=60)

    def _disagreement(self) -> Any:
        self.supervise()
        try:
            look = self.world.look()
            told = {n: look.agree(n, **wish.counts) for n, wish in self.wishes.items()}
        except PlaygroundError as error:
            return Not(str(error))
        wrong = {name: text for name, text in told.items() if text}
        return Not(str(wrong)) if wrong else True

    def check_engines(self, *, patience: float = 0.0) -> int:
        """Every attempt passed its gate at most once; no job is without its object.

        Args:
            patience: seconds that orphans may take to be ended.

        Returns:
            How many engines have been started.
        """
        folder = self.world.playground.state / "jobs"
        attempts = [p.name for p in folder.glob(f"{self.prefix}-*") if p.is_dir()]
        starts = {attempt: self.world.starts(attempt) for attempt in attempts}
        twice = {attempt: found for attempt, found in starts.items() if len(found) > 1}
        assert not twice, twice
        until(self._no_orphan, f"no job of {self.prefix} is an orphan", timeout=patience)
        return sum(map(len, starts.values()))

    def _no_orphan(self) -> Any:
        look = self.world.look()
        live = [job["name"] for job in look.queue if job["name"].startswith(f"{self.prefix}-")]
        assert len(live) == len(set(live)), live
        orphans = set(live) - {sj["spec"]["jobName"] for sj in look.objects("sj")}
        return Not(str(sorted(orphans))) if orphans else True

    def end(self, *, timeout: float = 120.0) -> None:
        """Delete all; nothing may be left, in Kubernetes or in the queue."""
        for name in self.wishes:
            self.world.delete(name, wait=False)

        def left() -> Any:
            self.supervise()
            look = self.world.look()
            found = [
                f"{kind} {obj['metadata']['name']}"
                for kind in LISTS
                for obj in look.objects(kind)
                if obj["metadata"]["name"].startswith(f"{self.prefix}-")
            ]
            found += [j["name"] for j in look.queue if j["name"].startswith(f"{self.prefix}-")]
            return Not(str(found)) if found else True

        until(left, f"nothing of {self.prefix} is left", timeout=timeout, every=0.5)


def start_again(operator: Operator) -> None:
    """As a supervisor does it: the same command, nothing installed anew."""
    operator.playground.components.start_again(operator.name)


def lease(world: World) -> tuple[str, str]:
    """Who holds the Lease, "" if nobody does, and when it was renewed."""
    with contextlib.suppress(PlaygroundError):
        spec = world.get("lease", "isthmus", NAMESPACE).get("spec", {})
        return str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
    return "", ""


def leading(world: World, operators: list[Operator]) -> tuple[Operator, str]:
    """Wait until one of them holds the Lease and renews it; returns it with its identity."""

    def look() -> Any:
        holder, renewed = lease(world)
        with contextlib.suppress(AssertionError):
            until(lambda: lease(world) not in ((holder, renewed), ("", "")), "", timeout=5)
        if lease(world)[0] != holder or not holder:
            return Not(f"{holder} does not renew")
        return next((each for each in operators if identity(each) == holder), None)

    found: Operator = until(look, "one of the operators leads", timeout=60)
    return found, identity(found)


def identity(operator: Operator) -> str:
    """The name under which it took the Lease last."""
    found = re.findall(r"is ours \((\w+)\)", operator.output())
    return found[-1] if operator.running and found else ""


@contextlib.contextmanager
def second_operator(world: World, arguments: list[str]) -> Iterator[Operator]:
    """A second replica, of which the Lease decides that it waits."""
    first = world.operators[0]
    other = Operator(
        world.playground,
        arguments=arguments,
        installation_id=first.installation_id,
        name="operator-2",
    )
    other.start()
    try:
        yield other
    finally:
        other.stop()
