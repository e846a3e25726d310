"""A few rows of each data set, as the files that the trainings read."""

import json
import lzma
from pathlib import Path

from models.train import data

SENTENCES = [
    ("The cat sleeps.", "Le chat dort."),
    ("I have two dogs.", "J'ai deux chiens."),
    ("Where is the station?", "Où est la gare ?"),
    ("It's raining.", "Il pleut."),
]
ABSTRACT = "We show that a graph of bounded degree has a small separator. The proof uses a random walk on the vertices."
CONTEXT = "The river Seine flows through Paris. Paris lies in France, and the Seine ends at Le Havre."


def write_xz(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(path, "wt", encoding="utf-8") as stream:
        stream.write(text)


def write_rows(root: Path) -> None:
    """The data directory of all trainings but those that are for published numbers alone."""
    pairs = "".join(f"{english}\t{french}\n" for english, french in SENTENCES * 5)
    write_xz(root / data.TATOEBA_TRAIN, pairs)
    write_xz(root / data.EUROPARL_TRAIN, pairs)
    papers = "".join(f"{n}\t2020-01-01\tmath.CO\tSmall separators {n}\t{ABSTRACT}\n" for n in range(30))
    write_xz(root / data.arxiv_file("train"), papers)
    answers = [{"answer_start": 30, "text": "Paris", "all_starts": [30, 37]}]
    question = {"id": "1", "question": "Which city is on the Seine?", "answers": answers}
    squad = {"data": [{"paragraphs": [{"context": CONTEXT, "qas": [question] * 8}]}]}
    write_xz(root / data.SQUAD_TRAIN, json.dumps(squad))
    header = "InvoiceNo\tStockCode\tDescription\tQuantity\tInvoiceDate\tUnitPrice\tCustomerID\tCountry\n"
    lines = [
        f"5{c:02}{i // 4}\t{i:05}\tRED TOY {i}\t1\t2011-01-{i + 1:02} 08:00:00\t2.5\t{c}\tFrance\n"
        for c in range(12)
        for i in range(10)
    ]
    returned = "C99\t00001\tRED TOY 1\t-1\t2011-03-01 08:00:00\t2.5\t1\tFrance\n"
    postage = "".join(f"5{c:02}\tPOST\tPOSTAGE\t1\t2011-03-02 08:00:00\t2.5\t{c}\tFrance\n" for c in range(12))
    write_xz(root / data.ONLINE_RETAIL, header + "".join(reversed(lines)) + returned + postage)
