"""A session of its own for the cluster's processes: signals reach one of them first, and none outlives it."""

import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

logger = logging.getLogger("heedful.session")

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1
PROC = Path("/proc")
KILLING_S = 5.0  # a killed process ends in an instant, unless it waits for a device or a network disk


def in_own_session(run: Callable[[], int]) -> int:
    """Run a function in a child that leads a new session, and return its exit code.

    A signal to the process group, from Ctrl-C, `timeout` or a supervisor, would end Ray's processes before their
    requests are answered. Here it reaches only this process, which forwards it to the child. When the child has ended,
    whatever is left of its session is killed.

    Args:
        run: returns the exit code; call before threads are started, since it runs after a fork.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.setsid()
        _end_with(parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        os._exit(_code_of(run))

    def forward(signum: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(child, signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)

    for signum in FORWARDED:
        signal.signal(signum, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    _, status = os.waitpid(child, 0)
    for signum in FORWARDED:  # the child's number may be another process's by now, and nothing may stop what follows
        signal.signal(signum, signal.SIG_IGN)
    _kill_session(child)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _code_of(run: Callable[[], int]) -> int:
    """What the interpreter would make of `run` at its own end."""
    try:
        return run()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - the interpreter's own last resort
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _end_with(parent: int) -> None:
    """Get SIGTERM when the parent ends in whatever way; Linux only."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _kill_session(session: int) -> None:
    """Kill until none is left: one may have begun another. Gives up on those that the system itself holds."""
    give_up = time.monotonic() + KILLING_S
    told: set[int] = set()
    while left := list(_members(session)):
        pids = ", ".join(map(str, left))
        if time.monotonic() > give_up:
            logger.error("what the cluster left behind does not end, although it was killed: %s", pids)
            return
        if not told.issuperset(left):
            logger.warning("killing what the cluster left behind: %s", pids)
            told.update(left)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _members(session: int) -> Iterator[int]:
    """Living processes of the session, from Linux's process table."""
    for entry in PROC.glob("[0-9]*/stat"):
        try:
            state, _, _, sid, *_ = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(sid) == session and state != "Z":
            yield int(entry.parent.name)
