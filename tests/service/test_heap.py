"""The collector leaves what lasts alone, in every process that serves."""

import subprocess
import sys
from pathlib import Path

import service

ROOT = Path(service.__file__).parents[1]

EMBEDDED = """
import gc, os, signal, socket
from service.embedded import run_embedded
from service.settings import Settings

def ready():
    print(gc.get_freeze_count() > 50_000, len(gc.get_objects()) < gc.get_freeze_count())
    os.kill(os.getpid(), signal.SIGTERM)

run_embedded(Settings(log_level="warning"), socket.create_server(("127.0.0.1", 0)), ready)
"""


def test_a_process_that_is_ready_has_frozen_what_it_was_made_of() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["True", "True"]
