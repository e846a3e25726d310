"""Cuts a training into the stages of its task: each is a training of its own that goes on from the one before it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.train.loop import STATE_FILE, Budget


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One stage of a training, or all of it where its task has no stages.

    `constants` is the task's own description of the stage, with the number of updates that it needs in `steps`. `share`
    is its share of a budget for all stages, and `before` the folder of the stage whose weights and vocabulary it
    begins with.
    """

    name: str
    folder: Path
    share: float = 1.0
    constants: Any = None
    before: Path | None = None

    @property
    def fresh(self) -> bool:
        """Whether nothing is there to go on from."""
        return not (self.folder / STATE_FILE).exists()

    def budget(self, *, minutes: float | None, steps: int | None, spent_s: float) -> Budget:
        """Its share of a budget for all stages, less `spent_s` seconds; its own number of updates if there is none."""
        if minutes is None and steps is None:
            return Budget(steps=self.constants.steps)
        return Budget(
            seconds=None if minutes is None else max(0.0, minutes * 60 * self.share - spent_s),
            steps=None if steps is None else max(1, round(steps * self.share)),
        )


def remaining_parts(task: str, stages: Sequence[Any], out: Path, *, last_only: bool) -> list[Part]:
    """What is still to be trained, beginning with the stage in which an earlier run stopped.

    The last stage ends in `out`, the others in a folder below it.

    Raises:
        FileExistsError: only the last stage is wanted where a training of all stages has begun.
    """
    if not stages:
        return [Part(task, out)]
    folders = [*(out / f"stage-{number}" for number in range(1, len(stages))), out]
    whole = sum(stage.steps for stage in stages)
    parts = [
        Part(f"{task}, stage {number} of {len(stages)}", folder, stage.steps / whole, stage, before)
        for number, (stage, folder, before) in enumerate(zip(stages, folders, [None, *folders], strict=False), start=1)
    ]
    if last_only and folders[0].exists():
        raise FileExistsError(f"{out} holds a training that did not begin with a bundle; take an empty folder")
    # Who began with a bundle may go on without naming it again.
    if last_only or (not parts[-1].fresh and not folders[0].exists()):
        return [dataclasses.replace(parts[-1], share=1.0, before=None)]
    return parts[max((number for number, part in enumerate(parts) if not part.fresh), default=0) :]
