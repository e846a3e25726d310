"""A BART that can also copy: each next token comes from the vocabulary or from the source (See et al. 2017).

The pointer-generator of arXiv 1704.04368: a gate g mixes the decoder's softmax with an attention over the source's
tokens, `g * softmax(logits) + (1 - g) * copied`. Its logarithm takes the place of BART's logits, so that greedy,
sampled and beam decoding need not know.

A source token is found by what it means and by the token before it: keys and queries see the embedding of the previous
token on either side, so that a copy goes on with the word that follows in the source.
"""

from typing import Any

import torch
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration
from transformers.modeling_outputs import Seq2SeqLMOutput

SMALLEST = 1e-30
"""Least probability before the logarithm: a float32 far from underflow."""

CONTINUATION = 9.0
"""How strongly an untrained pointer goes on with a copy; about e^4 times as likely as another token."""

MASKED = -1e9


class PointerBartConfig(BartConfig):  # type: ignore[no-untyped-call]
    """BART's configuration and the width of the pointer's keys."""

    model_type = "pointer-bart"
    copy_width: int = 128


class Pointer(nn.Module):
    """Attention to source tokens whose weights are probabilities to copy them, and the gate.

    Args:
        width: of encoder, decoder and embeddings.
        copy_width: of keys and queries.
    """

    def __init__(self, width: int, copy_width: int) -> None:
        super().__init__()
        self.key, self.query = nn.Linear(width, copy_width), nn.Linear(width, copy_width)
        self.key_of_previous = nn.Linear(width, copy_width, bias=False)
        self.query_of_newest = nn.Linear(width, copy_width, bias=False)
        self.gate = nn.Linear(width, 1)
        self.scale: float = copy_width**-0.5

    def keys(self, encoded: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        """Encoder states and embeddings of the token before each, float [..., width], to float [..., copy width]."""
        keys: torch.Tensor = self.key(encoded) + self.key_of_previous(previous)
        return keys

    def queries(self, hidden: torch.Tensor, newest: torch.Tensor) -> torch.Tensor:
        """Decoder states and embeddings of the tokens that it read there, float [..., width], to [..., copy width].

        Their products with keys are scores of source tokens before the softmax.
        """
        queries: torch.Tensor = self.query(hidden) + self.query_of_newest(newest)
        return queries * self.scale


def mixed(logits: torch.Tensor, scores: torch.Tensor, gate: torch.Tensor, source_tokens: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the next token.

    Args:
        logits: of the vocabulary, float [..., vocabulary].
        scores: of the source tokens, float [..., source length]; `MASKED` where there is none.
        gate: logit of the share that the vocabulary has, float [..., 1].
        source_tokens: int64 [..., source length].

    Returns:
        Float [..., vocabulary].
    """
    generated = torch.softmax(logits, -1) * torch.sigmoid(gate)
    copied = torch.softmax(scores, -1) * torch.sigmoid(-gate)
    return generated.scatter_add(-1, source_tokens, copied).clamp(min=SMALLEST).log()


class PointerBart(BartForConditionalGeneration):  # type: ignore[no-untyped-call]
    """The checkpoint: what is trained, and what the exported graphs are held against."""

    config_class = PointerBartConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.pointer = Pointer(config.d_model, config.copy_width)
        self.post_init()  # type: ignore[no-untyped-call]

    def continue_copies(self) -> None:
        """Start the pointer with a preference for the source token behind the one that was said last."""
        rows = torch.empty_like(self.pointer.key_of_previous.weight)
        nn.init.orthogonal_(rows)
        with torch.no_grad():
            for part in (self.pointer.key_of_previous, self.pointer.query_of_newest):
                part.weight.copy_(rows * CONTINUATION)

    def keys(self, encoded: torch.Tensor, source_tokens: torch.Tensor) -> torch.Tensor:
        """Encoder states, float [rows, length, width], and ids, int64 [rows, length], to the pointer's keys."""
        before = torch.cat([source_tokens[:, :1], source_tokens[:, :-1]], 1)
        keys: torch.Tensor = self.pointer.keys(encoded, self.model.shared(before))
        return keys

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_source_tokens: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """As BART's; `decoder_source_tokens` are the source's ids where `input_ids` have been encoded before.

        Raises:
            ValueError: neither of them is given.
        """
        source = input_ids if decoder_source_tokens is None else decoder_source_tokens
        if source is None:
            raise ValueError("input_ids or decoder_source_tokens must be given: what is copied are ids of the source")
        kwargs["return_dict"] = True
        outputs = self.model(input_ids, attention_mask=attention_mask, decoder_input_ids=decoder_input_ids, **kwargs)
        hidden, newest = outputs.last_hidden_state, self.model.shared(decoder_input_ids)
        keys = self.keys(outputs.encoder_last_hidden_state, source)
        scores = torch.matmul(self.pointer.queries(hidden, newest), keys.transpose(1, 2))
        if attention_mask is not None:
            scores = scores.masked_fill(attention_mask[:, None, :] == 0, MASKED)
        logits = mixed(
            self.lm_head(hidden) + self.final_logits_bias,
            scores,
            self.pointer.gate(hidden),
            source[:, None, :].expand(scores.shape),
        )
        return Seq2SeqLMOutput(logits=logits, past_key_values=outputs.past_key_values)

    def generate(self, inputs: torch.Tensor, **kwargs: Any) -> Any:  # type: ignore[override]
        """As BART's, for the ids `inputs`, int64 [rows, length]."""
        return super().generate(inputs, decoder_source_tokens=inputs, **kwargs)  # type: ignore[misc]
