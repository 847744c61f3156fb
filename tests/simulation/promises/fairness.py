"""The part of the judge that looks at what waits: for a submission, or for an end after refusals.

Judged where nothing goes wrong but what one namespace does (`tenants.peaceful`); there every moment
counts, and elsewhere a fault may be the cause of any wait.
"""

from isthmus.api.conditions import Phase
from tests.simulation.promises.ledger import Attempt, Ledger

FIRST_SUBMISSION = 100.0
"""Most seconds until a good attempt is submitted: a place in the line and one before sbatch, each
of which somebody else's sbatch holds for 30 s, and two looks at the cluster."""

REFUSED = 60.0
"""Most seconds until an attempt that was refused is over."""

ALIKE, ALIKE_FOR = 3, 300.0
"""So many equal answers, and the seconds after the last of them in which the attempt comes to its
end: 115 in which a job could turn up, and two looks."""


class FairnessRules(Ledger):
    """Judges from time to time."""

    def sbatch_said(self, job_name: str, kind: str, *, refused: bool) -> None:
        """What the site answered to one submission, at this moment."""
        attempt = self.attempts.get(job_name)
        if attempt is None:
            return
        attempt.refused = attempt.refused or refused
        attempt.alike = attempt.alike + 1 if attempt.answer == kind else 1
        attempt.answer, attempt.answered_at = kind, self.now

    def nothing_sent(self, job_name: str) -> None:
        """What was tried was no submission; when it is tried again is not judged."""
        attempt = self.attempts.get(job_name)
        if attempt is not None and attempt.submissions:
            attempt.submissions.pop()
            attempt.tried = True

    def look_at_waits(self, good: str) -> None:
        """Judge all attempts; those of the namespace `good` deserve to be submitted soon."""
        for name, attempt in self.attempts.items():
            if attempt.gone or attempt.deleted_at is not None or attempt.over_at is not None:
                continue
            waited = self.now - attempt.made_at
            never = not attempt.submissions and not attempt.tried
            if attempt.namespace == good and never and attempt.phase in {None, Phase.WAITING}:
                self.require(
                    waited <= FIRST_SUBMISSION, f"{name} has waited {waited:.0f} s to be submitted"
                )
            self._comes_to_an_end(name, attempt)

    def _comes_to_an_end(self, name: str, attempt: Attempt) -> None:
        since = self.now - attempt.answered_at
        if attempt.refused:
            self.require(since <= REFUSED, f"{name} was refused {since:.0f} s ago and is not over")
        elif attempt.answer == "alike" and attempt.alike >= ALIKE:
            self.require(
                since <= ALIKE_FOR,
                f"{name} was answered alike {attempt.alike} times and is not over",
            )
