"""How full the memory is that a process shares with its neighbours: its container's, else its machine's."""

from pathlib import Path

PROC = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def memory_used_ratio(meminfo: Path = PROC, cgroup: Path = CGROUP) -> float:
    """The share, 0 to 1, that cannot be given to anybody else; NaN where Linux does not tell.

    A container's limit is read from cgroup v2 (`memory.max`), where pages of files that can be dropped do not count.
    """
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit != "max":
            used = int((cgroup / "memory.current").read_text()) - _value(cgroup / "memory.stat", "inactive_file")
            return used / int(limit)
    except OSError:
        pass  # no cgroup v2, or we are at its root: the machine's memory is the limit
    try:
        return 1 - _value(meminfo, "MemAvailable:") / _value(meminfo, "MemTotal:")
    except OSError:
        return float("nan")


def _value(path: Path, name: str) -> int:
    """The number beside a name in a file of lines `name number [unit]`."""
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name} "))
