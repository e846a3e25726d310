"""Encoder and decoder step of a BART that can copy: the modules of BART, and what its pointer adds to them."""

from typing import Any

import torch
from torch import nn

from models.nets.bart import bart
from models.nets.packed import CrossAttentionEncoder
from models.nets.pointer import MASKED, Pointer, mixed
from models.nets.step import Cache, DecoderStep, likeliest


class CopyingEncoder(nn.Module):
    """The encoder of an encoder-decoder, with what the pointer needs to know of each source token."""

    def __init__(self, encoder: CrossAttentionEncoder, pointer: Pointer) -> None:
        super().__init__()
        self.encoder, self.pointer = encoder, pointer
        self.layers, self.heads, self.head_width = encoder.layers, encoder.heads, encoder.head_width
        self.copy_width = pointer.key.out_features

    def forward(
        self,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        lengths: torch.Tensor,
        pad: torch.Tensor,
        unpad: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Packed rows to `cross`, float [T, 2 x layers, heads, head width]; `copy_keys`, float [T, copy width]; and
        `source_tokens`, int64 [T], the ids themselves.
        """
        hidden = self.encoder.encoder(tokens=tokens, positions=positions, lengths=lengths, pad=pad, unpad=unpad)
        return self.encoder.cross(hidden), self.keys(hidden, tokens, positions), tokens.clone()

    def keys(self, hidden: torch.Tensor, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """States of the encoder, float [T, width], and its tokens, int64 [T], to the pointer's keys."""
        before = torch.where(positions == 0, tokens, torch.roll(tokens, 1))
        return self.pointer.keys(hidden, self.encoder.encoder.embeddings.tokens(before))


class CopyingStep(nn.Module):
    """One decoder step whose logits are the logarithm of what decoder and pointer say together."""

    def __init__(self, decoder: DecoderStep, pointer: Pointer) -> None:
        super().__init__()
        self.decoder, self.pointer = decoder, pointer
        self.head = decoder.head

    def forward(
        self,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        total: torch.Tensor,
        source_lengths: torch.Tensor,
        source_total: torch.Tensor,
        source_last: torch.Tensor,
        past: list[Cache],
        cross: list[Cache],
        copy_keys: torch.Tensor,
        source_tokens: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, list[Cache], list[Cache]]:
        """As `DecoderStep.forward`.

        Args:
            copy_keys: float [rows, source length, copy width]; what stands behind a row's source is not read.
            source_tokens: int64 [rows, source length], ids of the vocabulary also where nothing is read.
        """
        hidden, presents, crosses = self.decoder.states(
            tokens=tokens,
            positions=positions,
            total=total,
            source_lengths=source_lengths,
            source_total=source_total,
            source_last=source_last,
            past=past,
            cross=cross,
        )
        queries = self.pointer.queries(hidden, self.decoder.embeddings.tokens(tokens))
        scores = torch.matmul(queries[:, None, :], copy_keys.transpose(1, 2)).squeeze(1).to(torch.float32)
        outside = torch.arange(copy_keys.shape[1])[None, :] >= source_lengths[:, None]
        scores = torch.where(outside, MASKED, scores)
        said, gate = self.head(hidden).to(torch.float32), self.pointer.gate(hidden).to(torch.float32)
        logits = mixed(said, scores, gate, source_tokens)
        return likeliest(logits), logits, presents, crosses


def pointer_bart(model: Any, *, source_length: int, target_length: int) -> tuple[CopyingEncoder, CopyingStep]:
    """Encoder and decoder step of a `models.nets.pointer.PointerBart`.

    Args:
        source_length: positions that the encoder keeps.
        target_length: positions that the decoder keeps.

    Raises:
        ValueError: the model has an activation that is not known here, or fewer positions than asked for.
    """
    encoder, step = bart(model, source_length=source_length, target_length=target_length)
    return CopyingEncoder(encoder, model.pointer).eval(), CopyingStep(step, model.pointer).eval()
