"""Models of real size as bundles, made once and kept in a folder; `converted` has what CTranslate2 reads."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from transformers import GenerationConfig

from loadtests.checkpoints import distilbert, opus_mt

EOS_ID = 0


@dataclass(frozen=True, slots=True)
class Material:
    """Where the forms of the model lie; each precision is a folder of its own."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """As transformers reads it."""
        return self.folder / "checkpoint"

    def bundle(self, precision: str) -> Path:
        """As Heedful reads it."""
        return self.folder / f"bundle-{precision}"

    def pieces(self, text: str) -> list[str]:
        """The tokens of a text with the end token, as CTranslate2 takes them."""
        return list(Tokenizer.from_file(str(self.checkpoint / "tokenizer.json")).encode(text).tokens)


def prepare(folder: Path, precisions: Sequence[str]) -> Material:
    """Make what is not there yet: a few minutes and 1 GB the first time.

    The end token is forbidden: with random weights it would come at random, and every system has to write as many
    tokens as are asked for.
    """
    material = Material(folder)
    if not material.checkpoint.is_dir():
        opus_mt(material.checkpoint)
        settings = GenerationConfig.from_pretrained(material.checkpoint)
        settings.bad_words_ids = [[settings.pad_token_id], [EOS_ID]]
        settings.forced_eos_token_id, settings.num_beams = None, 1
        settings.save_pretrained(material.checkpoint)
    for precision in precisions:
        if not material.bundle(precision).is_dir():
            out = material.bundle(precision)
            _export(material.checkpoint, out, task="translation", precision=precision, name="opus-mt", target="de")
    return material


def with_shortlist(material: Material, parallel: Path) -> Path:
    """The int8 bundle with a shortlist learned from a parallel text, made where it is not there yet."""
    bundle = material.bundle("int8-shortlist")
    if not bundle.is_dir():
        more = ("--shortlist", str(parallel))
        _export(material.checkpoint, bundle, *more, task="translation", precision="int8", name="opus-mt", target="de")
    return bundle


def question_answering_bundle(folder: Path) -> Path:
    """DistilBERT's size in int8, made where it is not there yet."""
    checkpoint, bundle = folder / "checkpoint-question-answering", folder / "bundle-question-answering"
    if not bundle.is_dir():
        if not checkpoint.is_dir():
            distilbert(checkpoint)
        _export(checkpoint, bundle, task="question-answering", precision="int8", name="distilbert", target="en")
    return bundle


def _export(checkpoint: Path, out: Path, *more: str, task: str, precision: str, name: str, target: str) -> None:
    options = ["--task", task, "--precision", precision, "--name", name]
    languages = ["--source-language", "en", "--target-language", target]
    command = [sys.executable, "-m", "service", "export", str(checkpoint), *options, *languages]
    subprocess.run([*command, *more, "--out", str(out)], check=True)
