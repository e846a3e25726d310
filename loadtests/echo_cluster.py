"""Replicas that know the echo: their classes come from here, so that importing them registers it in their processes."""

from pathlib import Path

from loadtests import echo
from service.cluster import build, front, replica, run_cluster
from service.settings import Settings


class Replica(replica.ModelReplica):
    """With the echo among its tasks."""


class Gateway(front.Gateway):
    """With the echo among its tasks."""


def run(settings: Settings, run_folder: Path) -> None:
    """Serve until SIGTERM."""
    vars(build).update(ModelReplica=Replica, Gateway=Gateway)
    run_cluster(settings, run_folder, lambda _address: None)


__all__ = ["Gateway", "Replica", "echo", "run"]
