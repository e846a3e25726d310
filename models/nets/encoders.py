"""From checkpoints of encoders with a question answering head to packed span scorers, a function for each family."""

from typing import Any

from models.nets.layers import Embeddings, FeedForward, activation_of, first_positions
from models.nets.packed import PackedEncoder, SpanScorer, post_norm_layer


def question_answering(model: Any, *, length: int) -> SpanScorer:
    """Packed span scorer of a `BertForQuestionAnswering`.

    Raises:
        ValueError: the model has an activation that is not known here, or fewer positions than asked for.
    """
    config, embeddings = model.config, model.bert.embeddings
    activation = activation_of(config.hidden_act)
    packed = PackedEncoder(
        Embeddings(
            embeddings.word_embeddings,
            positions=first_positions(embeddings.position_embeddings.weight, length),
            segments=embeddings.token_type_embeddings,
            norm=embeddings.LayerNorm,
        ),
        [
            post_norm_layer(
                attention=(layer.attention.self.query, layer.attention.self.key, layer.attention.self.value),
                out=layer.attention.output.dense,
                attention_norm=layer.attention.output.LayerNorm,
                feed_forward=FeedForward(layer.intermediate.dense, layer.output.dense, activation),
                feed_forward_norm=layer.output.LayerNorm,
                heads=config.num_attention_heads,
            )
            for layer in model.bert.encoder.layer
        ],
    )
    return SpanScorer(packed, model.qa_outputs).eval()
