"""Readers of the public data that the embedded models are trained and measured on; free of torch, so that measuring is.

Every reader takes the data directory, which holds one folder for each task:

    translation/tatoeba_en_fr.train.tsv.xz                 English, tab, French
    translation/europarl_v7_en_fr.train900k.tsv.xz         the same, sorted by length
    translation/testsets_en_fr.tar.xz                      testsets_en_fr/NAME.tsv, the same columns
    question-answering/squad_v1.1_{train,dev}.json.xz      SQuAD 1.1; an answer may carry `all_starts`
    summarization/arxiv_abstract_title.{train,dev,test}.tsv.xz   id, date, category, title, abstract
    summarization/scitldr_a.{train,dev}.jsonl.xz           SciTLDR-A: `source` and `target` are lists of sentences
    recommendation/online_retail_uci.tsv.xz                UCI Online Retail with its eight columns
    recommendation/s3rec_Beauty.txt.xz                     Amazon Beauty: in each line a user and items in time order
"""

import collections
import csv
import dataclasses
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

TATOEBA_TRAIN = "translation/tatoeba_en_fr.train.tsv.xz"
EUROPARL_TRAIN = "translation/europarl_v7_en_fr.train900k.tsv.xz"
TRANSLATION_TESTS = "translation/testsets_en_fr.tar.xz"
SQUAD_TRAIN = "question-answering/squad_v1.1_train.json.xz"
SQUAD_DEV = "question-answering/squad_v1.1_dev.json.xz"
SCITLDR_TRAIN = "summarization/scitldr_a.train.jsonl.xz"
SCITLDR_DEV = "summarization/scitldr_a.dev.jsonl.xz"
ONLINE_RETAIL = "recommendation/online_retail_uci.tsv.xz"
BEAUTY = "recommendation/s3rec_Beauty.txt.xz"


def arxiv_file(split: str) -> str:
    """The path below the data directory of arXiv's `train`, `dev` or `test` split."""
    return f"summarization/arxiv_abstract_title.{split}.tsv.xz"


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes as they lie on disk (compressed)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """One sentence in two languages, or one abstract (source) with its title (target)."""

    source: str
    target: str


@dataclasses.dataclass(frozen=True, slots=True)
class Tldr:
    """One abstract with the sentences that sum it up, any of which would do."""

    source: str
    targets: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One SQuAD question; `article` is the number of its article in the file.

    `answers` are the accepted texts; `starts` the character offsets in `context` at which the first of them may stand.
    """

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]
    article: int


@dataclasses.dataclass(frozen=True, slots=True)
class Purchases:
    """First purchases in time order: `histories[c]` holds customer c's items as ids 1..num_items (0 is padding).

    `items[i - 1]` and `titles[i - 1]` are the stock code and product name of id i. By leave-one-out the last item of
    a history is the test item and the one before it the validation item. Customer c's last invoice begins at
    `histories[c][last_invoices[c]]`; where nothing is known of invoices, it is the last item alone.
    """

    items: tuple[str, ...]
    titles: tuple[str, ...]
    histories: tuple[tuple[int, ...], ...]
    last_invoices: tuple[int, ...]


def _lines(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8", newline="\n") as stream:
        for line in stream:
            yield line.rstrip("\n")


def read_translation(path: Path, *, max_words: int | None = None) -> list[Pair]:
    """Sentence pairs of a compressed TSV file, those with at most `max_words` words on either side."""
    pairs = (Pair(*line.split("\t")[:2]) for line in _lines(path))
    if max_words is None:
        return list(pairs)
    return [p for p in pairs if max(p.source.count(" "), p.target.count(" ")) < max_words]


def read_translation_test(directory: Path, name: str) -> list[Pair]:
    """The named test set, such as `tatoeba-test-v2021-08-07`, `newstest2013` or `multi30k.test2016_flickr`."""
    with tarfile.open(directory / TRANSLATION_TESTS) as archive:
        member = archive.extractfile(f"testsets_en_fr/{name}.tsv")
        if member is None:
            raise ValueError(f"{TRANSLATION_TESTS}: {name} is not a file")
        lines = io.TextIOWrapper(member, encoding="utf-8", newline="\n").read().splitlines()
    return [Pair(*line.split("\t")[:2]) for line in lines]


def read_squad(path: Path) -> list[Question]:
    """The questions of a SQuAD 1.1 file in file order."""
    with lzma.open(path, "rt", encoding="utf-8") as stream:
        articles = json.load(stream)["data"]
    return [
        Question(
            id=qa["id"],
            question=qa["question"],
            context=paragraph["context"],
            answers=tuple(answer["text"] for answer in qa["answers"]),
            starts=tuple(qa["answers"][0].get("all_starts", [qa["answers"][0]["answer_start"]])),
            article=number,
        )
        for number, article in enumerate(articles)
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]


def read_arxiv(path: Path, *, newest: int | None = None) -> list[Pair]:
    """Abstracts (source) with their titles (target), in file order, or the `newest` so many in order of their dates."""
    rows = [line.split("\t") for line in _lines(path)]
    if newest is not None:
        rows = sorted(rows, key=lambda row: row[1])[-newest:]
    return [Pair(source=abstract, target=title) for _, _, _, title, abstract in rows]


def read_scitldr(path: Path) -> list[Tldr]:
    """Abstracts with every summary that somebody wrote."""
    entries = (json.loads(line) for line in _lines(path))
    return [Tldr(source=" ".join(entry["source"]), targets=tuple(entry["target"])) for entry in entries]


def read_online_retail(path: Path, *, core: int = 5) -> Purchases:
    """UCI Online Retail as histories of first purchases, filtered to the `core`-core.

    Returns, gifts and lines without a customer are left out, and so are codes that are no product (postage, fees).
    A customer's history holds each item once, at its first purchase, in time order (lines of one invoice in file
    order). Customers and items with fewer than `core` events are removed until none is left. A title is the most
    frequent description of the stock code, with its capitals lowered.
    """
    firsts: dict[tuple[str, str], str] = {}
    names: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    rows = list(csv.DictReader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE))
    rows.sort(key=lambda row: row["InvoiceDate"])
    for row in rows:
        customer, item = row["CustomerID"], row["StockCode"]
        if row["Description"].strip():
            names[item][" ".join(row["Description"].split())] += 1
        bought = int(row["Quantity"]) > 0 and float(row["UnitPrice"]) > 0
        if customer and bought and item[0].isdigit():
            firsts.setdefault((customer, item), row["InvoiceNo"])
    events = _dense_core(list(firsts), core)
    items = sorted({item for _, item in events})
    ids = {item: index for index, item in enumerate(items, start=1)}
    histories: dict[str, list[int]] = collections.defaultdict(list)
    invoices: dict[str, list[str]] = collections.defaultdict(list)
    for customer, item in events:
        histories[customer].append(ids[item])
        invoices[customer].append(firsts[customer, item])
    return Purchases(
        items=tuple(items),
        titles=tuple(readable_title(names[item].most_common(1)[0][0]) if names[item] else item for item in items),
        histories=tuple(tuple(histories[customer]) for customer in sorted(histories)),
        last_invoices=tuple(invoices[customer].index(invoices[customer][-1]) for customer in sorted(histories)),
    )


def read_beauty(path: Path) -> Purchases:
    """Amazon Beauty as the S3-Rec paper filtered it; an item is its number there, which is its title too."""
    lines = [[int(field) for field in line.split()] for line in _lines(path)]
    items = tuple(str(item) for item in range(1, max(item for _, *history in lines for item in history) + 1))
    histories = tuple(tuple(history) for _, *history in lines)
    return Purchases(items, items, histories, tuple(len(history) - 1 for history in histories))


def _dense_core(events: Sequence[tuple[str, str]], core: int) -> Sequence[tuple[str, str]]:
    while True:
        customers = collections.Counter(customer for customer, _ in events)
        items = collections.Counter(item for _, item in events)
        kept = [(c, i) for c, i in events if customers[c] >= core and items[i] >= core]
        if len(kept) == len(events):
            return kept
        events = kept


def readable_title(description: str) -> str:
    """`WHITE METAL LANTERN` as `White metal lantern`; a description that has lower-case letters stays as it is."""
    return description.capitalize() if description.isupper() else description
