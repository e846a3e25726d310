"""One measured number, and how measures get a bundle's answers: by its own tokenizer, graphs and decoding."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.progress import track

from models.load import Loaded
from models.offline import answer_all

BUNDLE = "this bundle"


@dataclass(frozen=True, slots=True)
class Result:
    """One number: whose, which, on what, and the measure's own signature where it has one."""

    system: str
    metric: str
    value: float
    dataset: str
    signature: str = ""


def answers(loaded: Loaded, bodies: Iterable[dict[str, Any]], total: int) -> Iterator[Any]:
    """The bundle's response to each request body, in order, with a progress bar."""
    requests = (loaded.task.request_type.model_validate(body) for body in bodies)
    return iter(track(answer_all(loaded, requests), description=loaded.bundle.manifest.name, total=total))
