"""Small bundles with a real tokenizer and no graphs: enough for a task, which never computes."""

from pathlib import Path

from models.bundle import Bundle, File, GenerationDefaults, Graphs, Languages, Limits, Manifest, sha256_of
from tests.models.test_text import word_pieces


def bundle_of(
    task: str,
    folder: Path,
    *,
    max_tokens: int,
    catalogue: str | None = None,
    max_items: int = 20,
    lowercase: bool = True,
) -> Bundle:
    """A bundle of the task whose rows hold at most `max_tokens`; if `lowercase`, its tokenizer knows no capitals."""
    word_pieces(lowercase=lowercase).save(str(folder / "tokenizer.json"))
    if catalogue is not None:
        (folder / "catalogue.json").write_text(catalogue, encoding="utf-8")
    manifest = Manifest(
        schema_version=1,
        name="small",
        task=task,
        version="1",
        source="made for a test",
        licence="Apache-2.0",
        family="none",
        parameters=1,
        languages=Languages(source=("en",), target=("fr",)),
        precisions={"fp32": Graphs(graphs={})},
        tokenizer=_file(folder, "tokenizer.json"),
        catalogue=_file(folder, "catalogue.json") if catalogue is not None else None,
        generation=GenerationDefaults(decoder_start_token_id=2, eos_token_id=3, max_new_tokens=20),
        limits=Limits(
            max_tokens=max_tokens, max_new_tokens=30, max_inputs=4, max_characters=2_000, max_items=max_items
        ),
        example={},
        created_by="a test",
    )
    return Bundle(folder, manifest)


def _file(folder: Path, name: str) -> File:
    path = folder / name
    return File(path=name, sha256=sha256_of(path), bytes=path.stat().st_size)
