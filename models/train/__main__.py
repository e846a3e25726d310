"""The training command: one task, one output directory, a budget in minutes or steps."""

import argparse
import importlib
import importlib.metadata
import logging
import shutil
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.logging import RichHandler
from transformers.utils import logging as transformers_logging

from models.bundle import Bundle, open_bundle
from models.errors import BundleError
from models.train import data
from models.train.loop import STATE_FILE, TOKENIZER_FILE, Budget, Recipe, Trainer, log, seed_everything
from models.train.restore import restore

DEFAULT_MINUTES = {
    "recommendation": 15.0,
    "recommendation-beauty": 30.0,
    "translation": 35.0,
    "question-answering": 35.0,
    "summarization": 82.0,
    "summarization-scitldr": 10.0,
}


def main(arguments: list[str] | None = None) -> None:
    """Train one model; run again with the same --out, it goes on where it stopped."""
    parser = argparse.ArgumentParser(prog="python -m models.train", description=main.__doc__)
    parser.add_argument("task", choices=sorted(DEFAULT_MINUTES))
    parser.add_argument(
        "--data", type=Path, required=True, help="data directory, laid out as models/train/data.py says"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="checkpoint directory; a training found there is resumed"
    )
    parser.add_argument("--minutes", type=float, help="budget in minutes of wall time, reading the data included")
    parser.add_argument("--steps", type=int, help="budget in updates; without --minutes there is no limit on time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start-from", type=Path, help="begin with the weights and the vocabulary of this bundle")
    options = parser.parse_args(arguments)

    started = time.monotonic()
    on_terminal = sys.stderr.isatty()
    handler = RichHandler(console=Console(stderr=True)) if on_terminal else logging.StreamHandler()
    logging.basicConfig(
        level=logging.INFO, format="%(message)s" if on_terminal else "%(asctime)s %(message)s", handlers=[handler]
    )
    module = importlib.import_module(f"models.train.{options.task.replace('-', '_')}")
    missing = [str(options.data / name) for name in module.FILES if not (options.data / name).is_file()]
    if missing:
        parser.error(f"--data: there is no file {missing[0]}")
    options.out.mkdir(parents=True, exist_ok=True)
    hashes = {name: data.sha256(options.data / name) for name in module.FILES}
    for name, digest in hashes.items():
        log.info("data %s sha256 %s", name, digest)

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    seed_everything(options.seed)
    fresh = not (options.out / STATE_FILE).exists()
    try:
        bundle = _bundle(options.start_from, options.task.removesuffix("-scitldr")) if options.start_from else None
        if bundle is not None and bundle.manifest.tokenizer is not None and fresh:
            shutil.copyfile(bundle.path(bundle.manifest.tokenizer), options.out / TOKENIZER_FILE)
        recipe: Recipe = module.prepare(options.data, options.out)
        if bundle is not None and fresh:
            restore(recipe.model, bundle)
    except BundleError as error:
        parser.error(f"--start-from: {error}")
    minutes = options.minutes if options.minutes or options.steps else DEFAULT_MINUTES[options.task]
    preparation_s = time.monotonic() - started
    budget = Budget(seconds=minutes and max(0.0, minutes * 60 - preparation_s), steps=options.steps)
    describe = {
        "task": options.task,
        "data_sha256": hashes,
        "budget": {"minutes": minutes, "steps": options.steps},
        "start_from": bundle and f"{bundle.manifest.name} {bundle.manifest.version}",
        "preparation_s": round(preparation_s, 1),
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers")},
    }
    trainer = Trainer(recipe, out=options.out, seed=options.seed, budget=budget, describe=describe)
    log.info("%s: %s", options.task, dict(recipe.hyperparameters))
    trainer.run()
    log.info("%s: %d steps in %.0f s, checkpoint in %s", options.task, trainer.step, trainer.trained_s, options.out)


def _bundle(folder: Path, task: str) -> Bundle:
    bundle = open_bundle(folder)
    if bundle.manifest.task != task or bundle.manifest.tokenizer is None:
        raise BundleError(f"{folder}: a {bundle.manifest.task} bundle, from which no {task} training can start")
    return bundle


if __name__ == "__main__":
    main()
