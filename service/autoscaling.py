"""How many replicas a group should have, by the seconds of work that wait for each: pure, so tests need no clock.

Up when more work waits than the bound allows, at most to twice as many as run. Down by one, of many by a tenth, when so
many less would have sufficed for a while by what the replicas are seen to be able to do. A backlog alone could not say
that: two replicas at 80 % have none, and one would drown.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BACKLOG, LOAD, IDLE = "backlog_s", "load", "idle_s"
"""What a replica reports: seconds of work that wait for it, the share of its capacity that it uses, and for how many
seconds it has had no request."""

# What stays must keep this distance from its capacity, or the next small wave would bring back what went.
SUFFICIENT_LOAD = 0.7
# Of the replicas, that go at once: one by one a hundred would take hours to become fifty.
GOING_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Bounds:
    """When to scale.

    Args:
        backlog_s: seconds of work that may wait for each replica.
        down_after_s: seconds for which fewer replicas must have sufficed.
        zero_after_s: seconds without any request before the last replica goes, where none are allowed.
    """

    backlog_s: float
    down_after_s: float
    zero_after_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a group.

    Args:
        now_s: on any clock, in seconds.
        running: replicas that take requests.
        target: replicas that there should be by the last decision.
        least, most: bounds on the decision.
        requests: that run or wait anywhere, also where there is no replica yet.
        backlogs_s: of each replica that has reported, in seconds of work.
        loads: of the same replicas, as shares of one replica's capacity.
        idle_s: for how long none of them has had a request.
    """

    now_s: float
    running: int
    target: int
    least: int
    most: int
    requests: float
    backlogs_s: Sequence[float] = ()
    loads: Sequence[float] = ()
    idle_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Since:
    """Since when fewer replicas would do; None while they would not."""

    spare_s: float | None = None


def decide(seen: Seen, bounds: Bounds, since: Since) -> tuple[int, Since]:
    """How many replicas there should be, and what to remember for the next look."""
    target = min(max(seen.target, seen.least), seen.most)
    if target == 0:
        return (1 if seen.requests > 0 and seen.most > 0 else 0), Since()
    backlog_s = sum(seen.backlogs_s)
    wanted = math.ceil(backlog_s / bounds.backlog_s)
    if wanted > target:
        return max(target, min(wanted, 2 * seen.running, seen.most)), Since()
    if target == 1:
        last_goes = seen.least == 0 and seen.running == 1 and seen.idle_s >= bounds.zero_after_s
        return (0 if last_goes else 1), Since()
    fewer = max(seen.least, target - max(1, int(GOING_SHARE * target)))
    if target == seen.least or not _suffice(seen, target, fewer, backlog_s, bounds):
        return target, Since()
    spare_s = seen.now_s if since.spare_s is None else since.spare_s
    goes = seen.now_s - spare_s >= bounds.down_after_s
    return (fewer, Since()) if goes else (target, Since(spare_s))


def _suffice(seen: Seen, target: int, fewer: int, backlog_s: float, bounds: Bounds) -> bool:
    if seen.running != target or len(seen.loads) < target:  # some are on their way, or have not reported yet
        return False
    return sum(seen.loads) <= SUFFICIENT_LOAD * fewer and backlog_s <= bounds.backlog_s * fewer / 2


@dataclass(slots=True)
class Context:
    """The part of Ray Serve's `AutoscalingContext` that the decision needs; Ray Serve gives its own."""

    current_num_replicas: int
    target_num_replicas: int
    total_num_requests: float
    aggregated_metrics: Mapping[str, Mapping[Any, float]]
    capacity_adjusted_min_replicas: int
    capacity_adjusted_max_replicas: int
    policy_state: Mapping[str, Any]
    current_time: float


class BacklogPolicy:
    """`decide` as Ray Serve calls it: `AutoscalingPolicy(policy_function="service.autoscaling:BacklogPolicy")`."""

    def __init__(self, *, backlog_s: float, down_after_s: float, zero_after_s: float) -> None:
        self._bounds = Bounds(backlog_s, down_after_s, zero_after_s)

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and the policy's state."""
        reported = context.aggregated_metrics
        seen = Seen(
            now_s=context.current_time,
            running=context.current_num_replicas,
            target=context.target_num_replicas,
            least=context.capacity_adjusted_min_replicas,
            most=context.capacity_adjusted_max_replicas,
            requests=context.total_num_requests,
            backlogs_s=tuple(reported.get(BACKLOG, {}).values()),
            loads=tuple(reported.get(LOAD, {}).values()),
            idle_s=min(reported.get(IDLE, {}).values(), default=0.0),
        )
        decided, since = decide(seen, self._bounds, Since(context.policy_state.get("spare_s")))
        return decided, {"spare_s": since.spare_s}
