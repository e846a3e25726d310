"""Scaling by backlog beside Ray Serve's own policy under the same wave, both simulated, for want of machines.

Ray's is written here from its documentation, not imported, since there it reads the clock of the machine:
https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.bars import markdown
from loadtests.fleets import START_S, WAVE_S, by_backlog, capacity_per_s, draw, wave
from loadtests.simulated import Costs
from loadtests.simulation import Asked, Scaling
from service.autoscaling import Context

REPLICAS, LEAST, MOST = 4, 2, 12
RAY_TARGET, RAY_REPORT_S, RAY_MEAN_S = 2.0, 10.0, 30.0
RAY_UP_S, RAY_DOWN_S = 30.0, 600.0
"""Ray Serve's defaults: requests under way in each replica, how often and over what time it hears of them, delays."""
TUNED_TARGET = 24.0
"""Three quarters of a replica's 32 slots."""


@dataclass(frozen=True, slots=True)
class OngoingRequests:
    """So many replicas that each has `target` requests under way, when that has been so for a delay."""

    target: float

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and since when it should change in which direction."""
        least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        wanted = min(max(math.ceil(context.total_num_requests / self.target), least), most)
        now_s, present = context.current_time, context.target_num_replicas
        direction = (wanted > present) - (wanted < present)
        if not direction:
            return present, {}
        state = context.policy_state
        since_s = state["since_s"] if state.get("direction") == direction else now_s
        if now_s - since_s >= (RAY_UP_S if direction > 0 else RAY_DOWN_S):
            return wanted, {}
        return present, {"direction": direction, "since_s": since_s}


def _ray(target: float) -> Scaling:
    return Scaling(OngoingRequests(target), LEAST, MOST, START_S, RAY_REPORT_S, RAY_MEAN_S)


POLICIES = {
    "by backlog": by_backlog(LEAST, MOST),
    "Ray Serve, its defaults": _ray(RAY_TARGET),
    f"Ray Serve, target {TUNED_TARGET:.0f}": _ray(TUNED_TARGET),
}


def compare(costs: Costs, asked: Sequence[Asked], docs: Path | None) -> None:
    """Print the table, and draw the picture where it is asked for."""
    per_s = capacity_per_s(costs, asked)
    waves = {name: wave(costs, asked, REPLICAS, per_s, scaling) for name, scaling in POLICIES.items()}
    lines = []
    for name, each in waves.items():
        _, _, _, most, calm, high, refused, _ = each.cells()
        before = max(count.target for count in each.group.counts if count.at_s < WAVE_S[0])
        lines.append((name, str(before), most, calm, high, refused, f"{each.replica_s():,.0f} s"))
    columns = ("policy", "replicas, calm", "most", "p95, calm", "p95, wave", "refused", "replicas × time")
    print(markdown(columns, lines))
    if docs is not None:
        draw(waves, docs / "policies.svg")
