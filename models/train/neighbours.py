"""The table of neighbours that a recommender is mixed with, counted from histories."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WINDOW = 10
DECAY = 0.7
PRIOR = 5.0


def count_neighbours(
    histories: Sequence[NDArray[np.int64]], items: int, most: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The items that most often stood near each item, before or after it, and their share of all that stood there.

    A neighbour at distance d counts `DECAY` to the power of d - 1, up to `WINDOW`; `PRIOR` is added to the sum that
    shares are of, so that an item that was seen once says little.

    Returns:
        Ids [items + 1, most], 0 behind the last neighbour of an item, and weights of the same shape.
    """
    pairs, amounts = [], []
    for distance in range(1, WINDOW + 1):
        before = np.concatenate([history[:-distance] for history in histories])
        after = np.concatenate([history[distance:] for history in histories])
        pairs += [before * (items + 1) + after, after * (items + 1) + before]
        amounts.append(np.full(2 * len(before), DECAY ** (distance - 1)))
    found, place = np.unique(np.concatenate(pairs), return_inverse=True)
    amount = np.bincount(place, np.concatenate(amounts))
    of, neighbour = np.divmod(found, items + 1)
    share = amount / (np.bincount(of, amount, items + 1) + PRIOR)[of]
    order = np.lexsort((-share, of))
    of, neighbour, share = of[order], neighbour[order], share[order]
    rank = np.arange(len(of)) - np.searchsorted(of, of)
    kept = rank < most
    ids, weights = np.zeros((items + 1, most), np.int32), np.zeros((items + 1, most), np.float32)
    ids[of[kept], rank[kept]], weights[of[kept], rank[kept]] = neighbour[kept], share[kept]
    return ids, weights
