"""The model of opus-mt's size as CTranslate2 reads it, apart from the bundles, which are measured without it too."""

import shutil
from pathlib import Path

import ctranslate2
from ctranslate2.converters.transformers import MarianMTLoader
from tokenizers import Tokenizer
from transformers import MarianMTModel

from loadtests.peers.material import EOS_ID, Material

UNUSED = "<unused-{}>"


def convert(material: Material, precision: str) -> Path:
    """Where it lies in this precision, made where it is not there yet."""
    out = material.folder / f"ctranslate2-{precision}"
    if not out.is_dir():
        making = out.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        _write(material.checkpoint, making, None if precision == "fp32" else precision)
        making.rename(out)
    return out


def _write(checkpoint: Path, out: Path, quantization: str | None) -> None:
    model = MarianMTModel.from_pretrained(checkpoint)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    known = {index: token for token, index in tokenizer.get_vocab().items()}
    # CTranslate2 drops the padding, which is the last id, and starts with the end token.
    vocabulary = [known.get(index, UNUSED.format(index)) for index in range(model.config.vocab_size - 1)]
    spec = MarianMTLoader().get_model_spec(model)
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)
    spec.config.eos_token, spec.config.unk_token = vocabulary[EOS_ID], "<unk>"
    spec.config.decoder_start_token = vocabulary[EOS_ID]
    spec.config.add_source_eos = spec.config.add_source_bos = False
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(out))


def translator(material: Material, precision: str, *, workers: int, threads: int) -> ctranslate2.Translator:
    """CTranslate2 with so many workers of so many threads each."""
    return ctranslate2.Translator(
        str(convert(material, precision)),
        device="cpu",
        compute_type="float32" if precision == "fp32" else precision,
        inter_threads=workers,
        intra_threads=threads,
    )
