"""What is replaced before what while a service runs, and how many CPUs are reserved for it; pure."""

import math
from collections.abc import Iterator, Mapping, Sequence

from service.errors import SettingsError
from service.serve_config import GATEWAY_CPUS, Application


def in_order(changed: Sequence[Application], running: Mapping[str, Application]) -> Iterator[list[Application]]:
    """What may be started together, one after the other.

    A canary before the replicas that send it requests; the gateway last, when it can show what is there; and who gives
    up a prefix before who gets it.

    Raises:
        SettingsError: groups exchange their prefixes.
    """
    held = {each.prefix: name for name, each in running.items() if name in {one.name for one in changed}}
    for kind in ("canary", "models", "gateway"):
        left = [each for each in changed if each.kind == kind]
        while left:
            some = [each for each in left if each.prefix is None or held.get(each.prefix, each.name) == each.name]
            if not some:
                names = ", ".join(sorted(each.name for each in left))
                raise SettingsError(
                    f"setting models: the replicas {names} would exchange what they serve; remove one first"
                )
            for each in some:
                left.remove(each)
                held = {prefix: name for prefix, name in held.items() if name != each.name}
            yield some


def reservation(*, cores: float, free: float, nodes: int, starting: int, replicas: int) -> float:
    """The CPUs that a replica reserves where no setting says it.

    An equal part of the cores for each replica, halved, so that an update finds room. What runs keeps what it has
    reserved when there were fewer, so that it is also a part only of what is free, and the smaller the more replicas
    there are: however many models come, one after the other, there is room for the next, and for a new gateway beside
    the old one.

    Args:
        cores: of the whole cluster.
        free: of them, less what others that start with these reserve.
        nodes: that the cluster has; each may have a rest in which no replica fits.
        starting: replicas that start with it.
        replicas: of all groups, once they run.
    """
    equal = (cores - 2 * GATEWAY_CPUS) / (2 * max(1, replicas))
    left = (free - GATEWAY_CPUS) / (max(1, replicas) + max(1, starting) + nodes - 1)
    return max(1, math.floor(min(equal, left) * 1000)) / 1000
