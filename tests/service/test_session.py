"""A session of its own: a signal to the whole group reaches its leader alone, and nothing of it is left at the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SCRIPT = """
import os, signal, subprocess, sys
from service import logs, session

logs.configure("info")
{before}

def stop(signum, _):
    print("stopped by", signum, "while its worker", "runs" if worker.poll() is None else "has ended", flush=True)
    raise SystemExit(7)

def begun():
    print(worker.pid, flush=True)

def run():
    global worker
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], process_group={group})
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    {body}

print("code", session.in_own_session(run), flush=True)
"""


LATE = """
members = session._members

def signalled(leader):
    os.kill(os.getpid(), {signum:d})
    return members(leader)

session._members = signalled
"""


# Linux gives no process a higher number than 4194304.
ENDLESS = """
session.KILLING_S = 0.5
session._members = lambda leader: [4194305]
"""


def begin(body: str, group: str = "None", before: str = "") -> tuple[subprocess.Popen[str], int]:
    script = SCRIPT.format(body=body, group=group, before=before)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def is_gone(pid: int) -> bool:
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_reaches_the_leader_first_and_the_rest_is_killed_after_it(signum: signal.Signals) -> None:
    process, worker = begin("begun(); signal.pause()", group="0")
    os.killpg(process.pid, signum)
    out, err = process.communicate(timeout=30)
    assert out.splitlines() == [f"stopped by {signum:d} while its worker runs", "code 7"]
    assert f"killing what the cluster left behind: {worker}" in err
    assert is_gone(worker)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_comes_while_the_rest_is_killed_stops_nothing(signum: signal.Signals) -> None:
    process, worker = begin("begun(); return 3", before=LATE.format(signum=signum))
    out, err = process.communicate(timeout=30)
    assert out.splitlines() == ["code 3"], err
    assert is_gone(worker)


def test_a_process_that_cannot_be_killed_is_left_behind() -> None:
    process, _ = begin("worker.kill(); worker.wait(); begun(); return 3", before=ENDLESS)
    out, err = process.communicate(timeout=30)
    assert out.splitlines() == ["code 3"]
    assert err.count("killing what the cluster left behind: 4194305") == 1
    assert "does not end, although it was killed: 4194305" in err


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("begun(); worker.kill(); worker.wait(); return 3", 3),
        ("begun(); worker.kill(); worker.wait(); sys.exit(4)", 4),
        ("begun(); worker.kill(); worker.wait(); raise KeyboardInterrupt", 130),
        ("begun(); worker.kill(); worker.wait(); os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("begun(); worker.kill(); worker.wait(); raise ValueError('broken')", 1),
    ],
)
def test_the_exit_code_is_the_one_of_the_function(body: str, code: int) -> None:
    process, _ = begin(body)
    out, err = process.communicate(timeout=30)
    assert out.splitlines() == [f"code {code}"]
    assert ("ValueError: broken" in err) == (code == 1)
    assert "left behind" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_the_leader_is_told_when_its_parent_is_killed() -> None:
    process, _ = begin("worker.kill(); worker.wait(); begun(); signal.pause()")
    process.kill()
    out, _ = process.communicate(timeout=30)
    assert out.splitlines() == [f"stopped by {signal.SIGTERM:d} while its worker has ended"]
