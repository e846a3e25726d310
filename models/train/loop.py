"""The training loop that all tasks share: schedule, checkpoints to resume from, logs and a progress bar."""

import dataclasses
import json
import logging
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

log = logging.getLogger("models.train")

STATE_FILE = "training_state.pt"
REPORT_FILE = "training.json"
TOKENIZER_FILE = "tokenizer.json"
LOG_EVERY_S = 20.0
SAVE_EVERY_S = 120.0

Batch = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True, slots=True)
class Optimization:
    """AdamW with gradient clipping; the learning rate rises to its peak over `warmup`, then falls to zero.

    `warmup` is a share of the whole budget. `slow` maps the prefix of a parameter's name to a factor on its learning
    rate; parameters that need no gradient are left out.
    """

    peak_lr: float
    warmup: float = 0.05
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    slow: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """Training ends when `seconds` of training time or `steps` updates are used up, whichever comes first."""

    seconds: float | None = None
    steps: int | None = None

    def progress(self, *, step: int, trained_s: float) -> float:
        """Share of the budget that is used, from 0 to 1."""
        used = [0.0]
        if self.seconds is not None:
            used.append(trained_s / self.seconds if self.seconds > 0 else 1.0)
        if self.steps is not None:
            used.append(step / self.steps)
        return min(1.0, max(used))


class Recipe(Protocol):
    """What a task brings to the loop.

    Whatever is random about the batches is drawn in `plan`, so that a resumed training goes on with the next batch.
    """

    optimization: Optimization
    hyperparameters: Mapping[str, Any]

    @property
    def model(self) -> torch.nn.Module:
        """The weights that the loop updates and saves."""

    def plan(self, rng: np.random.Generator) -> Sequence[NDArray[np.int64]]:
        """Draw an epoch: the example numbers of each batch."""

    def collate(self, rows: NDArray[np.int64]) -> Batch:
        """Padded tensors for examples of the epoch that was drawn last."""

    def loss(self, batch: Batch) -> torch.Tensor:
        """Scalar training loss."""

    def save(self, directory: Path) -> None:
        """Write the checkpoint that others load into an existing directory."""


def learning_rate(progress: float, warmup: float) -> float:
    """Factor on the peak learning rate: linear from 0 to 1 during `warmup`, then linear to 0 at the end."""
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return (1.0 - progress) / (1.0 - warmup)


def seed_everything(seed: int) -> None:
    """Seed torch and Python; NumPy generators are made from the seed where they are used."""
    random.seed(seed)
    torch.manual_seed(seed)


class Trainer:
    """One training in an output directory; `run` goes on from the state that an earlier run left there.

    `describe` is written into training.json beside what the loop measures.
    """

    def __init__(self, recipe: Recipe, *, out: Path, seed: int, budget: Budget, describe: Mapping[str, Any]) -> None:
        self.recipe, self.out, self.seed, self.budget, self.describe = recipe, out, seed, budget, describe
        self.optimizer = _optimizer(recipe)
        self.batches: Sequence[NDArray[np.int64]] = []
        self.step = self.epoch = self.position = 0
        self.trained_s = 0.0
        self.curve: list[tuple[int, float]] = []
        if (out / STATE_FILE).exists():
            self._restore()

    def run(self) -> None:
        """Train until the budget is used up, saving every two minutes and at the end."""
        self.recipe.model.train()
        last_log = last_save = last = time.monotonic()
        recent: list[float] = []
        with Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True)
        ) as bar:
            shown = bar.add_task("training", total=1.0)
            while (progress := self.progress()) < 1.0:
                recent.append(self.advance())
                now = time.monotonic()
                self.trained_s += now - last
                last = now
                bar.update(shown, completed=progress, description=f"step {self.step}, loss {recent[-1]:.3f}")
                if now - last_log > LOG_EVERY_S:
                    self._note(recent, progress)
                    recent, last_log = [], now
                if now - last_save > SAVE_EVERY_S:
                    self.save()
                    last_save = time.monotonic()
        if recent:
            self._note(recent, 1.0)
        self.save()

    def progress(self) -> float:
        """Share of the budget that is used."""
        return self.budget.progress(step=self.step, trained_s=self.trained_s)

    def advance(self) -> float:
        """Make one update and return its loss."""
        factor = learning_rate(self.progress(), self.recipe.optimization.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        batch = self._next_batch()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self.recipe.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.recipe.optimization.clip)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def _next_batch(self) -> Batch:
        if self.position == 0:
            self.epoch += 1
            self.batches = self._plan()
        rows = self.batches[self.position]
        batch = self.recipe.collate(rows)
        self.position = (self.position + 1) % len(self.batches)
        return batch

    def _plan(self) -> Sequence[NDArray[np.int64]]:
        return self.recipe.plan(np.random.default_rng([self.seed, self.epoch]))

    def _note(self, losses: Sequence[float], progress: float) -> None:
        mean = sum(losses) / len(losses)
        self.curve.append((self.step, round(mean, 4)))
        log.info(
            "step %d, epoch %d, %.1f %% of the budget, loss %.4f, %.0f s",
            self.step, self.epoch, 100 * progress, mean, self.trained_s,
        )  # fmt: skip

    def save(self) -> None:
        """Write checkpoint, report and state; each file is replaced whole, the state last."""
        fresh = self.out / "saving"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        self.recipe.save(fresh)
        (fresh / REPORT_FILE).write_text(json.dumps(self._report(), indent=1) + "\n", encoding="utf-8")
        torch.save(self._state(), fresh / STATE_FILE)
        for path in sorted(fresh.iterdir(), key=lambda path: path.name == STATE_FILE):
            path.replace(self.out / path.name)
        fresh.rmdir()

    def _report(self) -> dict[str, Any]:
        return {
            **self.describe,
            "seed": self.seed,
            "hyperparameters": {
                **dataclasses.asdict(self.recipe.optimization),
                **self.recipe.hyperparameters,
                "parameters": sum(p.numel() for p in self.recipe.model.parameters()),
            },
            "steps": self.step,
            "epochs": self.epoch,
            "training_s": round(self.trained_s, 1),
            "finished": self.progress() >= 1.0,
            "loss_curve": self.curve,
        }

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.recipe.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "step": self.step,
            "epoch": self.epoch,
            "position": self.position,
            "trained_s": self.trained_s,
            "curve": self.curve,
        }

    def _restore(self) -> None:
        state = torch.load(self.out / STATE_FILE, weights_only=True)
        self.recipe.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        self.step, self.epoch, self.position = state["step"], state["epoch"], state["position"]
        self.trained_s, self.curve = state["trained_s"], [tuple(point) for point in state["curve"]]
        if self.position:
            self.batches = self._plan()
        log.info("resumed at step %d, epoch %d, after %.0f s", self.step, self.epoch, self.trained_s)


def _optimizer(recipe: Recipe) -> torch.optim.Optimizer:
    settings = recipe.optimization
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in recipe.model.named_parameters():
        if parameter.requires_grad:
            factor = next((f for prefix, f in settings.slow.items() if name.startswith(prefix)), 1.0)
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "peak_lr": settings.peak_lr * factor, "weight_decay": decay}
            for (factor, decay), parameters in groups.items()
        ],
        lr=settings.peak_lr,
        betas=settings.betas,
        fused=True,
    )


def batches_by_length(
    lengths: NDArray[np.int64], budget: int, rng: np.random.Generator, *, cost: Callable[[int, int], int]
) -> list[NDArray[np.int64]]:
    """Cut all examples into shuffled batches of similar length.

    `cost(rows, longest)` is what a batch would take; a batch is closed before it exceeds `budget`. Lengths are compared
    with some noise, so that batches differ from epoch to epoch.
    """
    order = np.argsort(lengths + rng.uniform(0.0, 2.0, len(lengths)))
    batches, start, longest = [], 0, 0
    for end, index in enumerate(order):
        longest = max(longest, int(lengths[index]))
        if end > start and cost(end + 1 - start, longest) > budget:
            batches.append(order[start:end])
            start, longest = end, int(lengths[index])
    batches.append(order[start:])
    return [batches[index] for index in rng.permutation(len(batches))]
