"""Any question answering model of transformers on padded rows: for families that have no packed form."""

from typing import Any

import torch
from torch import nn

_PROBE = 16
"""Tokens of the row that is tried, with a quarter of padding, which is as much as a row gets."""

_ROUNDING = 1e-3
"""What sums in another order may change, in float32; what reads padding is off by far more."""


class PaddedSpanScorer(nn.Module):
    """The model as it is, behind the inputs of `models.packing.Padded`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.padding_token = int(model.config.pad_token_id or 0)

    def forward(
        self,
        *,
        padded_tokens: torch.Tensor,
        padded_segments: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Int64 [rows, S], [rows, S] and [rows] to `start_logits` and `end_logits`, float [rows, S] each.

        Some families know padding by its token, when they number positions, so that it is put where a row has ended.
        Without `lengths` no row has padding.
        """
        if lengths is None:
            mask = torch.ones_like(padded_tokens, dtype=torch.bool)
        else:
            mask = torch.arange(padded_tokens.shape[1])[None, :] < lengths[:, None]
        given = {} if padded_segments is None else {"token_type_ids": padded_segments}
        found = self.model(
            input_ids=torch.where(mask, padded_tokens, self.padding_token),
            attention_mask=mask.to(torch.int64),
            **given,
        )
        return found.start_logits, found.end_logits

    def reads_padding(self) -> bool:
        """Whether logits change with what stands behind a row, as those of ConvBERT do, whose convolutions read it."""
        tokens = torch.arange(_PROBE + 4)[None] % int(self.model.config.vocab_size)
        with torch.inference_mode():
            padded = self(padded_tokens=tokens, lengths=torch.tensor([_PROBE]))
            alone = self(padded_tokens=tokens[:, :_PROBE])
        return any(
            not torch.allclose(beside[:, :_PROBE], by_itself, rtol=_ROUNDING, atol=_ROUNDING)
            for beside, by_itself in zip(padded, alone, strict=True)
        )
