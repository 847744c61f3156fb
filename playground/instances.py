"""Which instance numbers are taken, and what of the machine was changed for all of them.

Claims lie in /run/isthmus-playground, as the network devices they stand for: both are gone after a
restart of the machine. The last playground that goes restores `ip_forward` and removes the folder.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playground import network
from playground.commands import run
from playground.config import INSTANCES, Names
from playground.errors import PlaygroundError
from playground.files import write_whole

CLAIMS = Path("/run/isthmus-playground")
FORMER_FORWARD = CLAIMS / "former-ip-forward"
NETNS_IS_OURS = CLAIMS / "netns-folder-is-ours"


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock of all claims; the folder itself is what is locked, so no file stays."""
    while True:
        CLAIMS.mkdir(mode=0o755, exist_ok=True)
        try:
            handle = os.open(CLAIMS, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not CLAIMS.exists() or os.fstat(handle).st_ino != CLAIMS.stat().st_ino:
                continue  # the last owner removed it meanwhile
            yield
            return
        finally:
            os.close(handle)


def _claim_file(instance: int) -> Path:
    return CLAIMS / f"instance-{instance}"


def owner(instance: int) -> Path | None:
    """The state folder of the playground that has this number, or None."""
    try:
        text = _claim_file(instance).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return Path(text) if text else None


def owned_by(state: Path) -> list[int]:
    """The numbers that a state folder has claimed (one at most, unless records were damaged)."""
    return [number for number in INSTANCES if owner(number) == state]


def claim(state: Path, *, instance: int | None) -> int:
    """Claim a number for a state folder; None takes the first free one.

    Raises:
        PlaygroundError: it belongs to another playground, or none is free.
    """
    with _locked():
        mine = owned_by(state)
        if mine:
            if instance not in (None, mine[0]):
                raise PlaygroundError(
                    f"the playground in {state} is instance {mine[0]}, not {instance}: stop it "
                    f"first (`make down STATE={state}`) or leave INSTANCE away"
                )
            return mine[0]
        candidates = INSTANCES if instance is None else [instance]
        taken = []
        for number in candidates:
            why = _obstacle(number)
            if not why:
                write_whole(_claim_file(number), f"{state}\n")
                _prepare_machine()
                return number
            taken.append(f"  {number}: {why}")
    _remove_if_unused()
    raise PlaygroundError(
        "no free playground instance; taken are\n"
        + "\n".join(taken)
        + "\nstop one with `make down STATE=...`, or write another INSTANCE (0 to 15)"
    )


def _obstacle(instance: int) -> str:
    """Why a number cannot be taken; empty also for one that a vanished playground left behind."""
    holder = owner(instance)
    if holder is not None and holder.exists():
        return f"the playground in {holder}"
    left = network.remains(Names(instance))
    if left:
        return f"left behind: {', '.join(left[:3])} (`make down INSTANCE={instance}`)"
    used = network.conflict(Names(instance))
    return f"the machine uses the network {used}" if used else ""


def _prepare_machine() -> None:
    former = network.IP_FORWARD.read_text(encoding="utf-8").strip()
    if not FORMER_FORWARD.exists():
        write_whole(FORMER_FORWARD, former)
    if not network.NETNS.exists():
        NETNS_IS_OURS.touch()
    if former != "1":
        network.IP_FORWARD.write_text("1", encoding="utf-8")


def release(instance: int) -> None:
    """Give a number back; the last one restores what was changed for all."""
    if not CLAIMS.exists():
        return
    with _locked():
        _claim_file(instance).unlink(missing_ok=True)
    _remove_if_unused()


def _remove_if_unused() -> None:
    if not CLAIMS.exists():
        return
    with _locked():
        if any(owner(number) is not None for number in INSTANCES):
            return
        if FORMER_FORWARD.exists():
            former = FORMER_FORWARD.read_text(encoding="utf-8")
            network.IP_FORWARD.write_text(former, encoding="utf-8")
        if NETNS_IS_OURS.exists() and network.NETNS.exists() and not any(network.NETNS.iterdir()):
            while run(["umount", "--lazy", network.NETNS], check=False).returncode == 0:
                pass
            network.NETNS.rmdir()
        for path in CLAIMS.iterdir():
            path.unlink()
        CLAIMS.rmdir()
