"""Requests per second of Heedful over HTTP against ONNX Runtime in process, in turn on the same texts and graph.

    python -m loadtests.peers.question_answering [--runs 3] [--folder runs/peers]

Heedful answers over HTTP from `heedful serve` with a replica of one thread for each core; each run starts it anew, so
that nothing else runs in the peer's turn. ONNX Runtime computes the same int8 graph file without a server, without
tokenizing and without looking for answers: it is given the token ids of all texts in advance, and takes the best of
three schedules for all cores: each text alone on all threads; each text alone, side by side on one thread each; and
batches of similar length, side by side on one thread each. The graph has no padding inside a batch, so that batches
sorted by length are what padded ones would be at their best. A model of DistilBERT's size with random weights; lengths
lognormal around 120 tokens, none above 384.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loadtests.bars import COLUMNS, Measured, markdown, of_runs
from loadtests.peers.material import question_answering_bundle
from loadtests.peers.traffic import Question, closed_loop_alone, draw_questions
from models.bundle import Bundle, open_bundle
from models.encoder import forward
from models.session import Session, open_session
from models.task import Row
from models.tasks.question_answering import QuestionAnswering, QuestionAnsweringRequest

BAR = 0.9
CALLERS = (8, 32)
TEXTS = 192
"""In a run."""
BATCH_TOKENS = 512
ROUTE = "/v1/question-answering"

Schedule = Callable[[Sequence[Row]], None]


def schedules(bundle: Bundle) -> Mapping[str, Schedule]:
    """What may be done with all rows at once on all cores."""
    cores = os.cpu_count() or 1
    wide = open_session(bundle, "int8", "forward", threads=cores)
    narrow = [open_session(bundle, "int8", "forward") for _ in range(cores)]

    def side_by_side(batches: Sequence[Sequence[Row]]) -> None:
        waiting = iter(batches)

        def work(session: Session) -> None:
            for batch in waiting:
                forward(session, batch)

        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(work, narrow))

    def alone_on_all(rows: Sequence[Row]) -> None:
        for row in rows:
            forward(wide, [row])

    return {
        f"one by one on {cores} threads": alone_on_all,
        f"one by one, {cores} at a time": lambda rows: side_by_side([[row] for row in rows]),
        f"sorted batches, {cores} at a time": lambda rows: side_by_side(_sorted_batches(rows)),
    }


def _sorted_batches(rows: Sequence[Row]) -> list[list[Row]]:
    """Longest first, so that no long batch is left for the end."""
    batches: list[list[Row]] = []
    room = 0
    for row in sorted(rows, key=lambda row: -len(row.tokens)):
        if len(row.tokens) > room:
            batches.append([])
            room = BATCH_TOKENS
        batches[-1].append(row)
        room -= len(row.tokens)
    return batches


def rows_of(bundle: Bundle, questions: Sequence[Question]) -> list[Row]:
    """What the model computes for the questions, a row for each window."""
    task = QuestionAnswering(bundle)
    return [
        row
        for question in questions
        for row in next(task.solve(QuestionAnsweringRequest.model_validate({"inputs": question.inputs()})))
    ]


def compare(folder: Path, runs: int, texts: int = TEXTS) -> Iterator[Measured]:
    """A line for each number of callers."""
    bundle = open_bundle(question_answering_bundle(folder))
    peers = schedules(bundle)
    tokenizer = bundle.folder / "tokenizer.json"
    for schedule in peers.values():
        schedule(rows_of(bundle, draw_questions(tokenizer, texts, seed=0)))  # warms it
    for callers in CALLERS:
        ours, client = [], []
        theirs: dict[str, list[float]] = {name: [] for name in peers}
        for run in range(1, runs + 1):
            questions = draw_questions(tokenizer, texts, seed=run)
            load = closed_loop_alone(
                folder,
                bundle.folder,
                ROUTE,
                [{"inputs": one.inputs()} for one in questions],
                callers=callers,
            )
            ours.append(load.per_s)
            client.append(load.client_cores)
            rows = rows_of(bundle, questions)
            for name, schedule in peers.items():
                theirs[name].append(texts / _seconds(schedule, rows))
        best = max(theirs, key=lambda name: sorted(theirs[name])[runs // 2])
        yield of_runs(
            f"question answering int8, {callers} callers",
            ours,
            theirs[best],
            "requests/s",
            f"ONNX Runtime in process, {best}",
            bar=BAR,
            client=client,
        )


def _seconds(schedule: Schedule, rows: Sequence[Row]) -> float:
    began = time.perf_counter()
    schedule(rows)
    return time.perf_counter() - began


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each line")
    parser.add_argument("--texts", type=int, default=TEXTS, help="in each run")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the model and the logs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(markdown(COLUMNS, (line.cells() for line in compare(options.folder, options.runs, options.texts))))


if __name__ == "__main__":
    main()
