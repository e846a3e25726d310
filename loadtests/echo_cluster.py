"""Replicas that know the echo: their classes come from here, so that importing them registers it in their processes."""

from pathlib import Path

from loadtests import echo
from service import cluster
from service.settings import Settings


class Replica(cluster.ModelReplica):
    """With the echo among its tasks."""


class Gateway(cluster.Gateway):
    """With the echo among its tasks."""


def run(settings: Settings, run_folder: Path) -> None:
    """Serve until SIGTERM."""
    cluster.ModelReplica, cluster.Gateway = Replica, Gateway  # type: ignore[misc]
    cluster.run_cluster(settings, run_folder, lambda: None)


__all__ = ["Gateway", "Replica", "echo", "run"]
