"""The likeliest token, whether the graph tells it or its logits do."""

from dataclasses import replace

from models.seq2seq import Seq2Seq
from models.session import Session
from models.task import Row
from tests.models.embedded import TRANSLATION, opened, run, session
from tests.models.test_device_caches import rows


class Untold(Session):
    """A step that gives logits, and not the likeliest token."""

    def __init__(self, session: Session) -> None:
        super().__init__(session._session)
        self.outputs = {name: spec for name, spec in self.outputs.items() if name != "next"}


def model(step: Session) -> Seq2Seq:
    generation = opened(TRANSLATION).manifest.generation
    assert generation is not None
    encoder = session(TRANSLATION, "encoder")
    return Seq2Seq(encoder, step, generation, source_length=64, target_length=24, slots=12)


def test_rows_write_the_same_where_the_graph_does_not_tell_the_likeliest() -> None:
    told, untold = model(session(TRANSLATION, "step")), model(Untold(session(TRANSLATION, "step")))
    for number, row in rows().items():
        assert row.generation is not None
        greedy = Row(row.tokens, generation=replace(row.generation, do_sample=False))
        expected = run(told, {number: greedy})
        assert run(untold, {number: greedy}).tokens == expected.tokens
        assert expected.tokens[number]
