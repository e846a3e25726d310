"""Output tokens per second of Heedful over HTTP against transformers' `generate()` in process, both in fp32.

    python -m loadtests.peers.generate [--runs 3] [--folder runs/peers]

`generate()` gets what CTranslate2 gets in `translation.py`: all texts and output lengths in advance, grouped by length,
in batches of as many as there are callers, all cores.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import MarianMTModel

from loadtests.bars import COLUMNS, Measured, markdown
from loadtests.peers.material import Material, prepare
from loadtests.peers.traffic import Asked
from loadtests.peers.translation import Rival, Seconds, Setting
from loadtests.peers.translation import compare as compare_translation

SETTING = Setting("fp32", 32, 1, None, batches=())


def seconds(material: Material) -> Seconds:
    """Everything on all cores, batch after batch."""
    torch.set_num_threads(os.cpu_count() or 1)
    model: Any = MarianMTModel.from_pretrained(material.checkpoint)
    tokenizer = Tokenizer.from_file(str(material.checkpoint / "tokenizer.json"))
    padding = model.config.pad_token_id

    def taken(asked: Sequence[Asked]) -> float:
        ordered = sorted(asked, key=lambda one: one.output_tokens)
        texts = [tokenizer.encode(one.text).ids for one in ordered]
        began = time.perf_counter()
        for start in range(0, len(ordered), SETTING.callers):
            rows = texts[start : start + SETTING.callers]
            width = max(map(len, rows))
            ids = torch.tensor([row + [padding] * (width - len(row)) for row in rows])
            length = max(one.output_tokens for one in ordered[start : start + SETTING.callers])
            model.generate(
                input_ids=ids,
                attention_mask=ids.ne(padding).long(),
                max_new_tokens=length,
                min_new_tokens=length,
                num_beams=1,
                do_sample=False,
            )
        return time.perf_counter() - began

    return taken


def compare(material: Material, runs: int, rounds: int) -> Iterator[Measured]:
    """One line of the table."""
    rivals = [Rival("transformers generate() in process", SETTING.callers, seconds(material))]
    return compare_translation(SETTING, material, runs, rounds=rounds, rivals=rivals)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="counted runs; one more warms up")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the model and the logs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    lines = compare(prepare(options.folder, ["fp32"]), options.runs, 2)
    print(markdown(COLUMNS, (line.cells() for line in lines)))


if __name__ == "__main__":
    main()
