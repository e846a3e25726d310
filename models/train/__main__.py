"""The training command: one task, one output directory, a budget in minutes or steps."""

import argparse
import dataclasses
import importlib
import importlib.metadata
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console
from rich.logging import RichHandler
from transformers.utils import logging as transformers_logging

from models.bundle import Bundle, open_bundle
from models.errors import BundleError
from models.train import data
from models.train.loop import STATE_FILE, TOKENIZER_FILE, Recipe, Trainer, log, seed_everything
from models.train.restore import restore
from models.train.stages import Part, remaining_parts

# None where a task has stages, which say how many updates they need.
DEFAULT_MINUTES: Mapping[str, float | None] = {
    "recommendation": 15.0,
    "recommendation-beauty": 30.0,
    "translation": None,
    "question-answering": None,
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
    parser.add_argument(
        "--minutes",
        type=float,
        help="budget in minutes of wall time for all stages, reading the data included; without it and --steps"
        " stages have their own numbers of updates, hours on two cores, and tasks without stages their own minutes",
    )
    parser.add_argument(
        "--steps", type=int, help="budget in updates for all stages; without --minutes there is no limit on time"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start-from", type=Path, help="begin the last stage with the weights and the vocabulary of this bundle"
    )
    options = parser.parse_args(arguments)
    for name in ("minutes", "steps"):
        given = getattr(options, name)
        if given is not None and not given > 0:
            parser.error(f"--{name} must be greater than 0, got {given}")

    on_terminal = sys.stderr.isatty()
    handler = RichHandler(console=Console(stderr=True)) if on_terminal else logging.StreamHandler()
    logging.basicConfig(
        level=logging.INFO, format="%(message)s" if on_terminal else "%(asctime)s %(message)s", handlers=[handler]
    )
    module = importlib.import_module(f"models.train.{options.task.replace('-', '_')}")
    missing = [str(options.data / name) for name in module.FILES if not (options.data / name).is_file()]
    if missing:
        parser.error(f"--data: there is no file {missing[0]}")
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        _train(module, options)
    except BundleError as error:
        parser.error(f"--start-from: {error}")
    except FileExistsError as error:
        parser.error(f"--out: {error}")


def _train(module: ModuleType, options: argparse.Namespace) -> None:
    started = time.monotonic()
    hashes = {name: data.sha256(options.data / name) for name in module.FILES}
    for name, digest in hashes.items():
        log.info("data %s sha256 %s", name, digest)
    bundle = _bundle(options.start_from, options.task.removesuffix("-scitldr")) if options.start_from else None
    is_budgeted = options.minutes is not None or options.steps is not None
    minutes = options.minutes if is_budgeted else DEFAULT_MINUTES[options.task]
    stages: Sequence[Any] = getattr(module, "STAGES", ())
    for part in remaining_parts(options.task, stages, options.out, last_only=bundle is not None):
        seed_everything(options.seed)
        recipe = _prepare(module, part, options.data, bundle)
        preparation_s = time.monotonic() - started
        budget = part.budget(minutes=minutes, steps=options.steps, spent_s=preparation_s)
        describe = {
            "task": part.name,
            "data_sha256": hashes,
            "budget": dataclasses.asdict(budget),
            "start_from": bundle and f"{bundle.manifest.name} {bundle.manifest.version}",
            "preparation_s": round(preparation_s, 1),
            "threads": torch.get_num_threads(),
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers")},
        }
        trainer = Trainer(recipe, out=part.folder, seed=options.seed, budget=budget, describe=describe)
        log.info("%s: %s, budget: %s", part.name, dict(recipe.hyperparameters), budget)
        trainer.run()
        log.info("%s: %d steps in %.0f s, checkpoint in %s", part.name, trainer.step, trainer.trained_s, part.folder)
        started = time.monotonic()


def _prepare(module: ModuleType, part: Part, directory: Path, bundle: Bundle | None) -> Recipe:
    """The recipe of one stage, with the weights and the vocabulary that a new training begins with."""
    part.folder.mkdir(parents=True, exist_ok=True)
    if part.fresh and part.before is not None:
        shutil.copyfile(part.before / TOKENIZER_FILE, part.folder / TOKENIZER_FILE)
    elif part.fresh and bundle is not None and bundle.manifest.tokenizer is not None:
        shutil.copyfile(bundle.path(bundle.manifest.tokenizer), part.folder / TOKENIZER_FILE)
    stage = () if part.constants is None else (part.constants,)
    recipe: Recipe = module.prepare(directory, part.folder, *stage)
    if part.fresh and part.before is not None:
        recipe.model.load_state_dict(torch.load(part.before / STATE_FILE, weights_only=True)["model"])
    elif part.fresh and bundle is not None:
        restore(recipe.model, bundle)
    return recipe


def _bundle(folder: Path, task: str) -> Bundle:
    bundle = open_bundle(folder)
    if bundle.manifest.task != task or bundle.manifest.tokenizer is None:
        raise BundleError(f"{folder}: a {bundle.manifest.task} bundle, from which no {task} training can start")
    return bundle


if __name__ == "__main__":
    main()
