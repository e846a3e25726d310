"""Heedful on Ray Serve: an application for each group of models, and the gateway at `/`.

The only package that imports Ray. Import it after `service.ray_environment.prepare` has run: Ray reads its environment
when it is imported.
"""

from service.cluster.build import application
from service.cluster.lifecycle import change_running, run_cluster

__all__ = ["application", "change_running", "run_cluster"]
