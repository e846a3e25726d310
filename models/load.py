"""From a bundle's folder to what can answer: the opened bundle, its task and its model."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic import BaseModel, ValidationError

from models.budget import Footprint, check_budget
from models.bundle import Bundle, Device, Precision, Role, open_bundle
from models.caches import reads_caches_on_device, slot_bytes
from models.encoder import MOST_TOKENS, Encoder
from models.errors import BundleError
from models.explainer import Explainer
from models.head import ShortHead
from models.scoring import MOST_ROWS, Scorer
from models.seq2seq import Seq2Seq
from models.session import Session, open_session, provider
from models.shortlist import Shortlist
from models.task import Model, Task
from models.tasks import TASKS
from models.tasks.recommendation import check_catalogue

EXPLAINED_TOKENS = 128
"""Tokens that are read at once to explain an answer: few, since answers share the processor with it."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A bundle that is ready to answer.

    Args:
        model: answers.
        explainer: takes the rows that explain an answer, with the same graphs but a state of its own.
        long: the model once more with a state of its own, which may compute beside it; None where rows join a running
            batch, so that long ones keep nobody waiting.
        memory_bytes: what of a GPU's memory it holds.
    """

    bundle: Bundle
    precision: Precision
    task: Task[Any, Any]
    model: Model
    explainer: Explainer
    long: Model | None
    memory_bytes: int


class _Parts(NamedTuple):
    model: Model
    explainer: Explainer
    long: Model | None
    footprint: Footprint


def load(
    folder: Path,
    *,
    precision: Precision | None = None,
    slots: int = 32,
    threads: int = 1,
    budget_tokens: int | None = None,
    memory_bytes: int | None = None,
) -> Loaded:
    """Open a bundle and load its model.

    Args:
        precision: which graphs; None takes what is fastest here of what the bundle carries, see `preferred`.
        slots: rows that compute side by side; each beam of a row takes one.
        threads: of each ONNX Runtime session; more replicas use more cores better than more threads do.
        budget_tokens: source tokens that one pass takes; what the bundle says for this device unless given.
        memory_bytes: that the model may take of a GPU; as much as there is unless given.

    Raises:
        BundleError: the bundle is broken, its task is unknown, it decodes with more beams than there are slots, it
            does not fit `memory_bytes`, or ONNX Runtime refuses a graph.
    """
    bundle = _within(open_bundle(folder), slots)
    make = cast("Callable[[Bundle], Task[Any, Any]]", task_type(bundle))
    chosen = precision or preferred(bundle.manifest.precisions)
    parts = _load(bundle, chosen, slots=slots, threads=threads, budget_tokens=budget_tokens, memory_bytes=memory_bytes)
    held = parts.footprint.total(slots)
    return Loaded(bundle, chosen, make(bundle), parts.model, parts.explainer, parts.long, held)


def task_type(bundle: Bundle) -> type[Task[Any, Any]]:
    """What the bundle's task is here.

    Raises:
        BundleError: this release does not have it.
    """
    asked = bundle.manifest.task
    if asked not in TASKS:
        raise BundleError(f"{bundle.folder}: task {asked!r} is unknown, this release has {', '.join(TASKS)}")
    return TASKS[asked]


def example_of(bundle: Bundle) -> BaseModel:
    """The bundle's example as a request.

    Raises:
        BundleError: its task is unknown, or the example is no request of it.
    """
    task = task_type(bundle)
    try:
        return task.request_type.model_validate(bundle.manifest.example)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in ("example", *first["loc"]))
        raise BundleError(f"{bundle.folder}: field {field} is not of a {task.id} request: {first['msg']}") from error


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
    return _load(bundle, precision, slots=slots, threads=threads, lean=lean, budget_tokens=budget_tokens).model


def _load(
    bundle: Bundle,
    precision: Precision,
    *,
    slots: int,
    threads: int,
    budget_tokens: int | None,
    lean: bool = False,
    memory_bytes: int | None = None,
) -> _Parts:
    def session(role: Role) -> Session:
        return open_session(bundle, precision, role, threads=threads, lean=lean, memory_bytes=memory_bytes)

    footprint = Footprint(_weights_bytes(bundle, precision))
    if memory_bytes is not None:
        check_budget(bundle.manifest.name, footprint, slots, memory_bytes)
    budget_tokens = budget_tokens or bundle.manifest.budget_tokens.get(device())
    roles, generation = set(bundle.graphs(precision).graphs), bundle.manifest.generation
    show = partial(session, "explain") if "explain" in roles else None
    roles.discard("explain")
    if roles == {"forward"}:
        forward = session("forward")
        scored = forward.outputs["scores"].shape[-1] if "scores" in forward.outputs else None
        if bundle.manifest.catalogue is not None and isinstance(scored, int):
            check_catalogue(bundle.path(bundle.manifest.catalogue), scored)
        explains = Explainer(Encoder(forward, slots=MOST_ROWS, budget_tokens=EXPLAINED_TOKENS), show, None)
        passes = partial(Encoder, forward, slots=slots, budget_tokens=budget_tokens)
        return _Parts(passes(), explains, passes(), footprint)
    # A shortlist spares a processor the output layer, at the price of weights that change: nothing that a GPU wants.
    shortlist = bundle.manifest.shortlist if device() == "cpu" else None
    needed = {"encoder", "step", "shortlisted", "words"} if shortlist else {"encoder", "step"}
    if not needed <= roles:
        raise BundleError(
            f"{bundle.folder}: {precision} graphs must be {' and '.join(sorted(needed))}, or forward alone, got"
            f" {', '.join(sorted(roles))}"
        )
    if generation is None:
        raise BundleError(f"{bundle.folder}: a model with a step graph needs the field generation")
    limits, encoder = bundle.manifest.limits, session("encoder")
    step, head = session("shortlisted" if shortlist else "step"), None
    if shortlist:
        head = ShortHead(step, session("words"), Shortlist.read(bundle.path(shortlist)), generation, slots)
    else:  # only a GPU's memory is counted by slots, and there no shortlist is used
        footprint = replace(footprint, slot=slot_bytes(step, limits.max_tokens, limits.max_new_tokens))
    if memory_bytes is not None:
        check_budget(bundle.manifest.name, footprint, slots, memory_bytes)
    model = Seq2Seq(
        encoder,
        step,
        generation,
        head=head,
        source_length=limits.max_tokens,
        target_length=limits.max_new_tokens,
        slots=slots,
        resident=reads_caches_on_device(step),
        budget_tokens=budget_tokens or MOST_TOKENS,
    )
    whole: Callable[[], Session] = partial(session, "step") if shortlist else lambda: step
    scorer = Scorer(encoder, whole, generation, budget_tokens=EXPLAINED_TOKENS)
    return _Parts(model, Explainer(scorer, show, generation), None, footprint)


def _weights_bytes(bundle: Bundle, precision: Precision) -> int:
    """At most what the weights of all graphs of a GPU take: files do not say what each graph reads of them."""
    graphs = bundle.graphs(precision)
    shared = graphs.weights.bytes if graphs.weights else 0
    used = [graph for role, graph in graphs.graphs.items() if role not in {"shortlisted", "words"}]
    return sum(graph.file.bytes + shared for graph in used)
