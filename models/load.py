"""From a bundle's folder to what can answer: the opened bundle, its task and its model."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from models.bundle import Bundle, Device, Precision, Role, open_bundle
from models.encoder import Encoder
from models.errors import BundleError
from models.head import ShortHead
from models.seq2seq import Seq2Seq
from models.session import Session, open_session, provider
from models.shortlist import Shortlist
from models.task import Model, Task
from models.tasks import TASKS


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A bundle that is ready to answer."""

    bundle: Bundle
    precision: Precision
    task: Task[Any, Any]
    model: Model


BUDGET_TOKENS = 512
"""One pass takes so many where the bundle does not say: more do not make it faster on two cores, only later."""


def load(
    folder: Path,
    *,
    precision: Precision | None = None,
    slots: int = 32,
    threads: int = 1,
    budget_tokens: int | None = None,
) -> Loaded:
    """Open a bundle and load its model.

    Args:
        precision: which graphs; None takes what is fastest here of what the bundle carries, see `preferred`.
        slots: rows that compute side by side; each beam of a row takes one.
        threads: of each ONNX Runtime session; more replicas use more cores better than more threads do.
        budget_tokens: source tokens that one pass takes; what the bundle says for this device unless given.

    Raises:
        BundleError: the bundle is broken, its task is unknown, it decodes with more beams than there are slots, or
            ONNX Runtime refuses a graph.
    """
    bundle = _within(open_bundle(folder), slots)
    if bundle.manifest.task not in TASKS:
        raise BundleError(f"{folder}: task {bundle.manifest.task!r} is unknown, this release has {', '.join(TASKS)}")
    chosen = precision or preferred(bundle.manifest.precisions)
    model = load_model(bundle, chosen, slots=slots, threads=threads, budget_tokens=budget_tokens)
    task = cast("Callable[[Bundle], Task[Any, Any]]", TASKS[bundle.manifest.task])(bundle)
    return Loaded(bundle, chosen, task, model)


def preferred(carried: Iterable[Precision]) -> Precision:
    """What is fastest here: float16 on a GPU, int8 on a CPU; where that is not carried, the first."""
    precisions = tuple(carried)
    fastest: Precision = "fp16" if device() == "cuda" else "int8"
    return fastest if fastest in precisions else precisions[0]


def _within(bundle: Bundle, slots: int) -> Bundle:
    manifest = bundle.manifest
    beams = manifest.generation.num_beams if manifest.generation else 1
    if beams > slots:
        raise BundleError(f"{bundle.folder}: decodes with {beams} beams, which need as many slots, got {slots}")
    return replace(bundle, manifest=manifest.model_copy(update={"limits": manifest.limits.within(slots)}))


def device() -> Device:
    """What sessions compute on here."""
    return "cuda" if provider() == "CUDAExecutionProvider" else "cpu"


def load_model(
    bundle: Bundle,
    precision: Precision,
    *,
    slots: int = 32,
    threads: int = 1,
    lean: bool = False,
    budget_tokens: int | None = None,
) -> Model:
    """The model of an opened bundle, without its task; see `load`.

    Args:
        lean: see `models.session.open_session`.

    Raises:
        BundleError: the roles of the graphs fit no kind of model, or ONNX Runtime refuses one.
    """

    def session(role: Role) -> Session:
        return open_session(bundle, precision, role, threads=threads, lean=lean)

    budget_tokens = budget_tokens or bundle.manifest.budget_tokens.get(device(), BUDGET_TOKENS)
    roles = set(bundle.graphs(precision).graphs)
    if roles == {"forward"}:
        return Encoder(session("forward"), slots=slots, budget_tokens=budget_tokens)
    shortlist = bundle.manifest.shortlist
    needed = {"encoder", "step", "shortlisted", "words"} if shortlist else {"encoder", "step"}
    if not needed <= roles:
        raise BundleError(
            f"{bundle.folder}: {precision} graphs must be {' and '.join(sorted(needed))}, or forward alone, got"
            f" {', '.join(sorted(roles))}"
        )
    if bundle.manifest.generation is None:
        raise BundleError(f"{bundle.folder}: a model with a step graph needs the field generation")
    limits = bundle.manifest.limits
    step, head = session("shortlisted" if shortlist else "step"), None
    if shortlist:
        head = ShortHead(
            step, session("words"), Shortlist.read(bundle.path(shortlist)), bundle.manifest.generation, slots
        )
    return Seq2Seq(
        session("encoder"),
        step,
        bundle.manifest.generation,
        head=head,
        source_length=limits.max_tokens,
        target_length=limits.max_new_tokens,
        slots=slots,
        budget_tokens=budget_tokens,
    )
