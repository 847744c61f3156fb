"""Process 1 of an engine's container: a small parent, so that a pod that loads can be ended.

The kernel drops a TERM that process 1 has no handler for, and engines have none, or one that hangs,
while they load: as process 1 they kept their GPU for the whole grace of the pod. So a script of
ours is process 1 and the engine its child:

* Told to end before the engine has ever been ready, it passes the signal on, and kills an engine
  that is still there some seconds later. Once the engine has been ready, it passes the signal on to
  the engine's main process and waits, however long that takes: the engine finishes its requests.
* It ends as the engine ends: with its exit code, or 128 + the number of the signal that killed it.
  With process 1 the kernel ends all that is left in the container.
* It reaps what other processes leave behind. Output, environment, working directory and arguments
  are the engine's own.

No `shareProcessNamespace`: every other container of the pod could read the key out of the engine's
environment. As `prestop.py`, a constant text with its values as arguments, run by the image's own
python3 (isolated: what is meant for the engine's Python is not read); an image that has none starts
the engine directly, as before.

Kubernetes replaces `$(NAME)` and `$$` in a container's command, so the texts must hold neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.api.ip_family import IpFamily
from isthmus.backends.kubernetes.script_text import script_text

MISSING_PROGRAM = 127
"""Exit code for a program that the image does not have; a shell's, too."""
UNUSABLE_PROGRAM = 126
"""Exit code for a program that cannot be run."""
PATIENCE_SECONDS = 3
"""A loading engine has as long to end by itself."""

SCRIPT = script_text("""\
import os, signal, socket, sys, time
host, port, path, patience = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
engine = sys.argv[5:]
STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
PASS = {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
WAITED = STOP | PASS | {signal.SIGCHLD}

def answers():
    # True, False, or None where somebody listens and says nothing in time.
    try:
        line = ask(b"GET " + path.encode() + b" HTTP/1.1\\r\\nHost: localhost\\r\\n")
    except ConnectionError:
        return False
    except OSError:
        return None
    return line.split()[1:2] == [b"200"]

def ask(request):
    until, page = time.monotonic() + 2, b""
    with socket.create_connection((host, port), timeout=2) as connection:
        connection.sendall(request + b"Connection: close\\r\\n\\r\\n")
        while b"\\r\\n" not in page and len(page) < 1000:
            connection.settimeout(max(0.01, until - time.monotonic()))
            piece = connection.recv(1000)
            if not piece:
                break
            page += piece
    return page.partition(b"\\r\\n")[0]

def refused(error):
    missing = isinstance(error, FileNotFoundError)
    fault = "does not have the program" if missing else "has a program that cannot be run:"
    text = f"the image {fault} {engine[0]} ({error.strerror}): correct engine.image or engine.type"
    print(text, file=sys.stderr, flush=True)
    try:
        with open("/dev/termination-log", "r+") as told:
            told.write(text)
    except OSError:
        pass
    return 127 if missing else 126

def follow(child):
    ready, look, kill = False, time.monotonic() + 1, None
    while True:
        wake = kill if kill is not None else None if ready else look
        if wake is None:
            number = signal.sigwaitinfo(WAITED).si_signo
        else:
            found = signal.sigtimedwait(WAITED, max(0, wake - time.monotonic()))
            number = found.si_signo if found else None
        if number == signal.SIGCHLD:
            code = reap(child)
            if code is not None:
                return code
        elif number in STOP:
            ready = ready or answers() is not False
            os.kill(child, number)
            if not ready and kill is None:
                kill = time.monotonic() + patience
        elif number in PASS:
            os.kill(child, number)
        if not ready and kill is None and time.monotonic() >= look:
            ready, look = answers() is True, time.monotonic() + 1
        if kill is not None and time.monotonic() >= kill:
            os.kill(child, signal.SIGKILL)
            kill = time.monotonic() + patience

def reap(child):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == child:
            code = os.WEXITSTATUS(status)
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else code

# Blocked, so that none is lost before it is waited for; process 1 would lose it.
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
mask = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)
child = os.fork()
if child == 0:
    code = 1
    try:
        os.setpgid(0, 0)
        # Python ignores these two, and what is ignored stays so in another program.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvp(engine[0], engine)
    except OSError as error:
        code = refused(error)
    finally:
        os._exit(code)
sys.exit(follow(child))
""")

_SHELL = (
    'if command -v python3 >/dev/null; then exec python3 -I -S -c "$0" "$@"; fi; shift 4; exec "$@"'
)


@dataclass(frozen=True, slots=True)
class Command:
    """`command` and `args` of a container."""

    command: list[str]
    args: list[str]


def under_first_process(
    engine: Sequence[str], *, port: int, path: str, host: str = IpFamily.IPV4.loopback
) -> Command:
    """An engine's command line with our process 1 before it.

    Args:
        engine: program and arguments; they become the container's `args`, word by word.
        port: where the engine listens on loopback.
        host: loopback of the family on which it listens.
        path: answers 200 at once when the engine is ready.
    """
    own = [host, str(port), path, str(PATIENCE_SECONDS)]
    return Command(["/bin/sh", "-c", _SHELL, SCRIPT, *own], list(engine))
