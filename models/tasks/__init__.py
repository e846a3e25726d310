"""The registry of tasks: a new task is one module here and one line below."""

from collections.abc import Mapping
from typing import Any

from models.task import Task
from models.tasks.question_answering import QuestionAnswering
from models.tasks.recommendation import Recommendation
from models.tasks.summarization import Summarization
from models.tasks.translation import Translation

TASKS: Mapping[str, type[Task[Any, Any]]] = {
    task.id: task for task in (Translation, Summarization, QuestionAnswering, Recommendation)
}
