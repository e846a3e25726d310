"""Where a checkpoint comes from: a directory, or a model of the Hugging Face hub through its own client."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import DryRunFileInfo, constants, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from models.export.errors import PICKLE_HINT, ExportError
from models.export.staging import require_space

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
BESIDE_WEIGHTS = (
    "README.md",
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "items.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "source.spm",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "target.spm",
    "target_vocab.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""Nothing else is downloaded: no pickle, and no program."""

LOCAL_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Origin:
    """A checkpoint on this disk, and where it came from.

    Args:
        folder: with config.json, weights and tokenizer.
        name: the last part of a directory's or model's name.
        source: for the model card.
        version: the commit on the hub, `1` for a directory.
    """

    folder: Path
    name: str
    source: str
    version: str


def find(source: str, revision: str | None = None) -> Origin:
    """The checkpoint `source`, a directory or a model id, which is downloaded to the hub's cache where it is not yet.

    The hub's client obeys HF_TOKEN, HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE.

    Args:
        revision: branch, tag or commit on the hub; None takes its main branch.

    Raises:
        ExportError: neither a directory nor a model, no safetensors, no access, no space, or the hub is out of reach.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ExportError(f"{source} is a directory, --revision {revision} is for models of the hub: leave it out")
        folder = folder.resolve()
        return Origin(folder, folder.name, f"local checkpoint {folder.name}", LOCAL_VERSION)
    try:
        folder = Path(_download(source, revision))
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise ExportError(_sentence(source, revision, error)) from error
    commit = folder.name
    return Origin(folder, source.rpartition("/")[2], f"{constants.ENDPOINT}/{source} at revision {commit}", commit[:12])


def _download(model: str, revision: str | None) -> str:
    if not sys.stderr.isatty():
        disable_progress_bars()
    patterns = [*WEIGHTS, *BESIDE_WEIGHTS]
    try:
        files = snapshot_download(model, revision=revision, allow_patterns=patterns, dry_run=True)
    except DryRunError:  # nothing but the cache is there to answer, and it says itself what it lacks
        return snapshot_download(model, revision=revision, allow_patterns=patterns)
    _require_safetensors(model, (file.filename for file in files))
    cache = Path(constants.HF_HUB_CACHE)
    present = next(folder for folder in (cache, *cache.parents) if folder.exists())
    require_space(present, sum(_missing_bytes(file) for file in files))
    return snapshot_download(model, revision=files[0].commit_hash, allow_patterns=patterns)


def _require_safetensors(model: str, names: Iterable[str]) -> None:
    if not any(name.endswith(".safetensors") for name in names):
        raise ExportError(f"{model} has no safetensors weights; {PICKLE_HINT}")


def _missing_bytes(file: DryRunFileInfo) -> int:
    return file.file_size or 0 if file.will_download else 0


def _sentence(model: str, revision: str | None, error: Exception) -> str:
    """What is wrong and what to do, for each way in which the client fails; a special case before its general one."""
    hub = constants.ENDPOINT
    offline = f"{model} is not in the cache and HF_HUB_OFFLINE is set: unset it, or export from a directory"
    unreachable = f"{hub} cannot be reached and {model} is not in the cache: try again, or export from a directory"
    no_model = f"{model} is neither a directory here nor a model on {hub}"
    sentences: Sequence[tuple[type[Exception], str]] = (
        (HFValidationError, f"{model} is neither a directory here nor a model id such as Helsinki-NLP/opus-mt-en-de"),
        (GatedRepoError, f"{model} is gated: accept its terms on {hub}/{model}, and set HF_TOKEN"),
        (RevisionNotFoundError, f"{model} has no revision {revision}: give a branch, tag or commit that it has"),
        (RepositoryNotFoundError, f"{no_model}: check the name, and set HF_TOKEN if the model is private"),
        (LocalEntryNotFoundError, offline if constants.HF_HUB_OFFLINE else unreachable),
    )
    for kind, sentence in sentences:
        if isinstance(error, kind):
            return sentence
    return f"{model} cannot be downloaded from {hub}: {str(error).strip().splitlines()[0]}; try again"
