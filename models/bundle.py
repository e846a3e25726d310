"""A bundle on disk: the manifest's schema, and the checks that a folder must pass before anything in it is used."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from models.errors import BundleError

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
EXPORTING = ".heedful-export-"
"""Stands between the name of a bundle and something random in the name of the folder that an export works in."""
PREVIOUS = "previous"
"""Where that folder keeps, for a moment, the bundle that is being replaced."""

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
Device: TypeAlias = Literal["cpu", "cuda"]
Role: TypeAlias = Literal["encoder", "step", "forward", "shortlisted", "words", "explain"]
"""What a graph is for. `shortlisted` is a step whose output layer is given to it, `words` gives parts of that;
`explain` shows what a single row attended to.
"""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class File(Frozen):
    """A file of the bundle: its path relative to the folder, and what it must hash to."""

    path: str
    sha256: Sha256
    bytes: int = Field(ge=0)


class Graph(Frozen):
    """One ONNX graph and its signature, names in the order of the graph."""

    file: File
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Graphs(Frozen):
    """The graphs of one precision. `weights` is the external data that they share: tied weights are stored once."""

    graphs: dict[Role, Graph]
    weights: File | None = None

    def files(self) -> Iterator[File]:
        """The graphs and their weights."""
        yield from (graph.file for graph in self.graphs.values())
        if self.weights is not None:
            yield self.weights


class GenerationDefaults(Frozen):
    """Token ids and settings that a generating model starts from; they mean what they mean in transformers.

    A forced end token is the last of a row that reaches `max_new_tokens`. `bad_words` are sequences of two tokens and
    more, `suppressed_token_ids` single ones. The model reads `prefix` before every source: T5's "summarize: ".
    `temperature`, `top_k` and `top_p` hold for requests that ask for sampling; None does nothing.
    """

    prefix: str = ""
    decoder_start_token_id: int
    eos_token_id: int
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    suppressed_token_ids: tuple[int, ...] = ()
    bad_words: tuple[Annotated[tuple[int, ...], Field(min_length=2)], ...] = ()
    max_new_tokens: int = Field(gt=0)
    min_new_tokens: int = Field(0, ge=0)
    temperature: float | None = Field(None, gt=0)
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    no_repeat_ngram_size: int = Field(0, ge=0)
    num_beams: int = Field(1, gt=0)
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    renormalize_logits: bool = False


class Limits(Frozen):
    """What one request may ask of this model.

    `max_tokens` counts one row's source with its special tokens, `max_characters` one input text, `max_items` one
    history.
    """

    max_tokens: int = Field(gt=0)
    max_new_tokens: int = Field(1, gt=0)
    max_inputs: int = Field(128, gt=0)
    max_characters: int = Field(100_000, gt=0)
    max_items: int = Field(1_000, gt=0)
    max_top_k: int = Field(100, gt=0)
    max_beams: int = Field(8, gt=0)

    def within(self, slots: int) -> "Limits":
        """The same for a model with so many slots: a beam takes one."""
        return self.model_copy(update={"max_beams": min(self.max_beams, slots)})


class Languages(Frozen):
    """What the model reads and writes: ISO 639 codes, or for a multilingual model its own ("fr_XX", "fra_Latn")."""

    source: tuple[str, ...]
    target: tuple[str, ...] = ()


class SourceTokens(Frozen):
    """Special token ids around a text of one language."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


class TargetTokens(Frozen):
    """What asks for one language.

    Args:
        before: ids that come first in the source, as Marian's `>>fra<<`.
        forced_bos_token_id: what the decoder must write first; None leaves that to the bundle's generation defaults.
    """

    before: tuple[int, ...] = ()
    forced_bos_token_id: int | None = Field(None, ge=0)


class LanguageTokens(Frozen):
    """How a multilingual model is told its languages, under its own codes ("fra", "fra_Latn", "fr_XX", "fr").

    Args:
        source: empty where a text looks the same in every language; the tokenizer's own special tokens then stand
            around it.
        target: every language that can be asked for.
        default_source: what a text is taken for; None requires a request to say it, unless `source` is empty.
        default_target: what a text is translated into; None requires a request to say it.
    """

    source: dict[str, SourceTokens] = Field(default_factory=dict)
    target: dict[str, TargetTokens] = Field(min_length=1)
    default_source: str | None = None
    default_target: str | None = None


class OutOfVocabulary(Frozen):
    """Pieces that a tokenizer cuts text into and the model has no id for: the ids from `first_id` on.

    Some Marian models have them; the model reads `unknown_token_id` for each.
    """

    first_id: int = Field(gt=0)
    unknown_token_id: int = Field(ge=0)


class Quality(Frozen):
    """A measured number and the command that measured it."""

    metric: str
    value: float
    dataset: str
    command: str


class Calibration(Frozen):
    """Log-odds of a score: `slope` times those of the model's probability, plus `intercept`."""

    slope: float = Field(gt=0)
    intercept: float


class Manifest(Frozen):
    """`bundle.json`: all that a bundle says of itself.

    `example` is a request that the model must answer before it counts as ready, `parity` a file of rows with what the
    checkpoint answered to them, `shortlist` which words are likely for which source token. Probabilities
    become scores by `score_calibration`. One pass takes `budget_tokens` on a kind of device, as measured by
    `heedful bench --tune`.
    """

    schema_version: Literal[1]
    name: Name
    task: str
    version: str
    source: str
    licence: str
    family: str
    parameters: int = Field(gt=0)
    languages: Languages
    language_tokens: LanguageTokens | None = None
    precisions: dict[Precision, Graphs] = Field(min_length=1)
    tokenizer: File | None = None
    out_of_vocabulary: OutOfVocabulary | None = None
    catalogue: File | None = None
    parity: File | None = None
    shortlist: File | None = None
    generation: GenerationDefaults | None = None
    limits: Limits
    score_calibration: Calibration | None = None
    budget_tokens: dict[Device, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)
    quality: tuple[Quality, ...] = ()
    example: dict[str, JsonValue]
    created_by: str

    def files(self) -> Iterator[File]:
        """Every file that the manifest vouches for."""
        for precision in self.precisions.values():
            yield from precision.files()
        files = (self.tokenizer, self.catalogue, self.parity, self.shortlist)
        yield from (file for file in files if file is not None)


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: every file that the manifest names is there and hashes to what it should."""

    folder: Path
    manifest: Manifest

    def path(self, file: File) -> Path:
        """Where a file of the manifest lies on disk."""
        return self.folder / file.path

    def graphs(self, precision: Precision) -> Graphs:
        """The graphs of one precision.

        Raises:
            BundleError: the bundle does not carry this precision.
        """
        try:
            return self.manifest.precisions[precision]
        except KeyError:
            carried = ", ".join(self.manifest.precisions)
            raise BundleError(f"{self.folder}: no {precision} graphs, the bundle carries {carried}") from None


def bundles_in(folder: Path) -> list[Path]:
    """Every bundle that the folder holds, sorted, with the places of those that a killed export has left aside."""
    found = {manifest.parent for manifest in folder.glob(f"*/{MANIFEST}")}
    for manifest in folder.glob(f".*{EXPORTING}*/{PREVIOUS}/{MANIFEST}"):
        name, _, _ = manifest.parents[1].name.removeprefix(".").rpartition(EXPORTING)
        found.add(folder / name)
    return sorted(found)


def read_manifest(folder: Path) -> Manifest:
    """Read and validate `bundle.json` without touching the files that it names.

    Raises:
        BundleError: no manifest, not JSON, a newer schema version, or a field that does not validate.
    """
    path = folder / MANIFEST
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(f"{folder}: {_why_missing(folder)}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read as JSON: {error}") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema_version is {version}, this release reads up to {SCHEMA_VERSION}: upgrade heedful"
        )
    try:
        return Manifest.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: field {field or '(root)'}: {first['msg']}") from error


def open_bundle(folder: Path) -> Bundle:
    """Read the manifest and check that every file it names is inside the folder, has its size and hashes to its sha256.

    Raises:
        BundleError: anything that does not hold, with the file and both values.
    """
    folder = folder.resolve()
    manifest = read_manifest(folder)
    for file in manifest.files():
        _check(folder, file)
    return Bundle(folder, manifest)


def sha256_of(path: Path) -> str:
    """Lower-case hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _why_missing(folder: Path) -> str:
    if not folder.exists():
        for left in folder.parent.glob(f".{escape(folder.name)}{EXPORTING}*/{PREVIOUS}"):
            return f"missing, an export that was killed while it replaced this bundle left it in {left}: move it back"
    return f"not a bundle, {MANIFEST} is missing"


def _check(folder: Path, file: File) -> None:
    path = folder / file.path
    inside = not PurePosixPath(file.path).is_absolute() and path.resolve().is_relative_to(folder)
    if not inside:
        raise BundleError(f"{folder}: {file.path!r} leads out of the bundle's folder")
    if not path.is_file():
        raise BundleError(f"{folder}: {file.path} is missing")
    size = path.stat().st_size
    if size != file.bytes:
        raise BundleError(f"{path}: {size} bytes, the manifest says {file.bytes}")
    digest = sha256_of(path)
    if digest != file.sha256:
        raise BundleError(f"{path}: sha256 {digest}, the manifest says {file.sha256}")
