"""Log lines: one format, and a traceback that can be told apart among the lines of other processes."""

import re
import subprocess
import sys

SCRIPT = """
import logging, sys
sys.stderr = None  # as Ray Serve replaces it
from service import logs
logs.configure({level!r})
log = logging.getLogger("heedful.access")
log.info("request_id=%s", "abc")
try:
    raise ValueError("broken")
except ValueError:
    log.exception("failed")
"""
START = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ heedful\.access "


def lines(level: str) -> list[str]:
    run = subprocess.run([sys.executable, "-c", SCRIPT.format(level=level)], capture_output=True, text=True, check=True)
    assert run.stdout == ""
    return run.stderr.splitlines()


def test_every_line_says_when_and_where() -> None:
    found = lines("info")
    assert found[0].endswith("INFO heedful.access request_id=abc")
    assert found[-1].endswith("ERROR heedful.access ValueError: broken")
    assert all(re.match(START, line) for line in found)


def test_the_level_is_kept() -> None:
    assert not any("INFO" in line for line in lines("warning"))
