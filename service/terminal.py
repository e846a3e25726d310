"""Between a command line and a task: words become a request, an answer becomes lines, a mistake one sentence."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from typer.exceptions import TyperException

from models.errors import InvalidInput
from models.tasks import TASKS
from service.errors import UsageError

_LANGUAGE_OPTIONS = {"src_lang": "--source-language", "tgt_lang": "--target-language"}
"""By the parameters of a request that they stand for."""


def request_of(task: str, text: Sequence[str], languages: Mapping[str, str]) -> BaseModel:
    """The words of a command line as the task's request.

    Args:
        languages: by the names that the request has for them.

    Raises:
        UsageError: the task takes something else.
    """
    if languages and task != "translation":
        given = " and ".join(_LANGUAGE_OPTIONS[name] for name in languages)
        raise UsageError(f"{given} can be given for translation only, the task is {task}: leave it out")
    inputs: object = text
    if task == "question-answering":
        if len(text) != 2:
            raise UsageError(
                f"question-answering takes QUESTION and CONTEXT, got {len(text)} texts; quote each of them"
            )
        inputs = {"question": text[0], "context": text[1]}
    elif task == "recommendation":
        inputs = {"history": text}
    body = {"inputs": inputs} | ({"parameters": languages} if languages else {})
    try:
        return TASKS[task].request_type.model_validate(body)
    except ValidationError as error:
        raise UsageError("; ".join(f"{each['msg']}, got {each['input']!r}" for each in error.errors())) from None


def lines_of(task: str, answer: Any) -> Iterator[str]:
    """An answer for a reader: the text alone, or one tab-separated line for each of several candidates."""
    plain = TypeAdapter[Any](TASKS[task].response_type).dump_python(answer, exclude_none=True)
    for each in plain if isinstance(plain, list) else [plain]:
        yield "\t".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in each.values())


def by_option(error: InvalidInput) -> str:
    """What is wrong with a request, with the option in place of the field that it fills."""
    field = error.pointer.removeprefix("/")
    option = _LANGUAGE_OPTIONS.get(field.removeprefix("parameters/"), field)
    return error.detail.replace(field, option, 1)


def mistyped(error: TyperException) -> str:
    """What typer says of a word on the command line, as one sentence with a next step."""
    context = getattr(error, "ctx", None)
    said = " ".join(error.format_message().split()).replace("Value error, ", "").rstrip(".?")
    said = re.sub(r"(?:^|\. )[A-Z]", lambda start: start[0].replace(".", ":").lower(), said)
    return f"{said}; see {context.command_path if context else 'heedful'} --help"
