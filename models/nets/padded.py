"""Any question answering model of transformers on padded rows: for families that have no packed form."""

from typing import Any

import torch
from torch import nn


class PaddedSpanScorer(nn.Module):
    """The model as it is, behind the inputs of `models.packing.Padded`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.padding_token = int(model.config.pad_token_id or 0)

    def forward(
        self, *, padded_tokens: torch.Tensor, padded_segments: torch.Tensor | None = None, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Int64 [rows, S], [rows, S] and [rows] to `start_logits` and `end_logits`, float [rows, S] each.

        Some families know padding by its token, when they number positions, so that it is put where a row has ended.
        """
        mask = torch.arange(padded_tokens.shape[1])[None, :] < lengths[:, None]
        given = {} if padded_segments is None else {"token_type_ids": padded_segments}
        found = self.model(
            input_ids=torch.where(mask, padded_tokens, self.padding_token),
            attention_mask=mask.to(torch.int64),
            **given,
        )
        return found.start_logits, found.end_logits
