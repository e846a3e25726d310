"""Whether a model fits the memory that it may take of a GPU: arithmetic, said before it runs out of it under load."""

from dataclasses import dataclass

from models.errors import BundleError

COMPUTING_SHARE = 0.2
"""Of the memory that is left to what passes compute in, and to the libraries of CUDA. Assumed, not measured."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model keeps in a GPU's memory, in bytes.

    Args:
        weights: of all its graphs; each graph has a copy of its own.
        slot: for each sequence that decodes; 0 for a model of a single pass.
    """

    weights: int
    slot: int = 0

    def total(self, slots: int) -> int:
        """Bytes with so many slots."""
        return self.weights + slots * self.slot

    def most_slots(self, budget: int) -> int:
        """How many slots fit a budget of so many bytes beside what passes compute in; negative where weights do not."""
        left = int(budget * (1 - COMPUTING_SHARE)) - self.weights
        if not self.slot:
            return 0 if left >= 0 else -1
        return left // self.slot


def check_budget(name: str, footprint: Footprint, slots: int, budget: int) -> None:
    """Refuse a model that does not fit, before it runs out of memory under load.

    Args:
        name: of the model, for the message.
        budget: bytes that it may take.

    Raises:
        BundleError: with what it needs, what it may take, and what to change.
    """
    most = footprint.most_slots(budget)
    if most >= (slots if footprint.slot else 0):
        return
    needed = f"{name} needs {_gb(footprint.total(slots))} of GPU memory, {_gb(footprint.weights)} of it for weights"
    if footprint.slot:
        needed += f" and {footprint.slot / 1e6:,.1f} MB for each of {slots} slots"
    may = f"{_gb(int(budget * (1 - COMPUTING_SHARE)))} may be kept, four fifths of the {_gb(budget)} that it has"
    advice = f"set slots to {most} or fewer, or raise" if most > 0 else "raise"
    raise BundleError(f"{needed}; {may}: {advice} gpu_memory_mb or num_gpus")


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
