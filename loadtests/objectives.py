"""What a service is held to in a load test: objectives from a YAML file, and what was measured beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Latency(BaseModel):
    """Response times that a share of the answers must keep."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    p50_ms: float | None = Field(None, gt=0)
    p95_ms: float | None = Field(None, gt=0)
    p99_ms: float | None = Field(None, gt=0)


class Objectives(BaseModel):
    """Limits on failures and refusals over all tasks, and on the response times of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_failed_share: float = Field(0.0, ge=0, le=1)
    max_refused_share: float = Field(0.0, ge=0, le=1)
    tasks: dict[str, Latency] = {}


@dataclass(frozen=True, slots=True)
class Measured:
    """What one task answered: how many requests ended how, and the response times of answers by percentile, in ms."""

    answered: int
    refused: int
    failed: int
    percentiles_ms: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One objective, what was measured, and whether it is kept."""

    name: str
    limit: float
    measured: float

    @property
    def kept(self) -> bool:
        """Whether the measured value is within the limit."""
        return self.measured <= self.limit


def read_objectives(path: Path) -> Objectives:
    """Objectives from a YAML file.

    Raises:
        ValueError: the file cannot be read, or a key or value does not fit.
    """
    try:
        return Objectives.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}"
        ) from None


def judge(objectives: Objectives, measured: Mapping[str, Measured]) -> Sequence[Verdict]:
    """Every objective beside what was measured; a task that was asked nothing has no answer in time."""
    every = list(measured.values())
    total = sum(one.answered + one.refused + one.failed for one in every)
    verdicts = [
        Verdict("failed, share", objectives.max_failed_share, sum(one.failed for one in every) / max(1, total)),
        Verdict("refused, share", objectives.max_refused_share, sum(one.refused for one in every) / max(1, total)),
    ]
    for task, latency in objectives.tasks.items():
        for field, limit in latency.model_dump(exclude_none=True).items():
            percentile = int(field.removeprefix("p").removesuffix("_ms"))
            found = measured.get(task)
            value = found.percentiles_ms[percentile] if found is not None and found.answered else float("inf")
            verdicts.append(Verdict(f"{task} p{percentile}, ms", limit, value))
    return verdicts
