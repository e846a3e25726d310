"""What a bundle says of itself beyond its checkpoint: name, licence, limits, an example, measured quality, its card."""

import tomllib
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, JsonValue, ValidationError

from models.bundle import Calibration, Frozen, Languages, Limits, Name, Quality
from models.export.errors import ExportError

Operators: TypeAlias = Literal["onnxruntime", "standard"]
"""What graphs are made of: ONNX Runtime's own operators where they are faster, or none but those of ONNX itself."""


class Decoding(Frozen):
    """Replaces what the checkpoint's generation config says; absent fields keep it."""

    prefix: str | None = None
    max_new_tokens: int | None = Field(None, gt=0)
    temperature: float | None = Field(None, gt=0)
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    no_repeat_ngram_size: int | None = Field(None, ge=0)
    num_beams: int | None = Field(None, gt=0)
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None


class Card(Frozen):
    """Markdown for the model card: what only a person can say.

    Args:
        comparison: stands below the measured quality: what baselines and others reach, what each part brings.
    """

    summary: str = ""
    data: str = "Not stated."
    comparison: str = ""
    failures: str = "Not stated."


class Recipe(Frozen):
    """A recipe file, TOML.

    Args:
        source: where the weights come from.
        licence: SPDX expression of the weights.
        languages: none takes all that the checkpoint says of itself; of a multilingual one, a single target is what it
            writes when nobody asks for another.
        limits: None takes what the checkpoint's positions allow.
        example: a request that the served model must answer before it counts as ready; None takes one that suits.
        score_calibration: what `python -m models.evaluate.calibration` finds, for question answering.
        references: further requests on which exported graphs are held against the checkpoint.
        explain: also write the graph that shows what a row attended to, where the family has one.
    """

    name: Name
    version: str = "1"
    source: str
    licence: str
    languages: Languages = Languages(source=())
    limits: Limits | None = None
    generation: Decoding = Decoding()
    score_calibration: Calibration | None = None
    example: dict[str, JsonValue] | None = None
    references: tuple[dict[str, JsonValue], ...] = ()
    explain: bool = True
    quality: tuple[Quality, ...] = ()
    card: Card = Card()


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        ExportError: the file cannot be read, or a field does not validate.
    """
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ExportError(f"{path}: field {field or '(root)'}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read as TOML: {error}") from error
