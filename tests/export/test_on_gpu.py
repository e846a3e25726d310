"""The first things to run where there is a GPU, with float16 bundles of each kind of attention; skipped elsewhere."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from models.caches import DeviceCaches
from models.export.sample import TOLERANCE, check_sample
from models.load import Loaded, load
from models.offline import answer_all, compute
from models.seq2seq import Seq2Seq
from models.session import provider
from models.task import Generation, Row
from service.gpu import visible_gpu
from tests.export.exported import FP16, Exported

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(provider() != "CUDAExecutionProvider", reason="ONNX Runtime has no CUDA here"),
]
GENERATING = ("marian", "pointer-bart", "t5")
SETTLED, ROUNDS = 20, 200


def opened(exports: Callable[[str], Exported], kind: str) -> Loaded:
    return load(exports(kind).bundle.folder, precision="fp16", slots=12)


def rows(loaded: Loaded) -> list[Row]:
    """Greedy, sampled and with beams, of different lengths, so that they leave one after the other."""
    rng, limits = np.random.default_rng(3), loaded.bundle.manifest.limits
    kinds = (Generation(4), Generation(6, num_beams=3), Generation(8, do_sample=True, top_k=20))
    longest = min(limits.max_tokens, 24)
    return [
        Row(rng.integers(4, 60, 2 + index % (longest - 2)), generation=replace(kinds[index % 3], seed=index))
        for index in range(24)
    ]


@pytest.mark.parametrize("kind", FP16)
def test_it_is_as_near_the_checkpoint_as_float16_explains(exports: Callable[[str], Exported], kind: str) -> None:
    """The sample holds what the original computed in float32 on a CPU."""
    found = check_sample(exports(kind).bundle, "fp16")
    assert found is not None
    assert found.relative_error < TOLERANCE["fp16"]
    loaded = opened(exports, kind)
    assert all(answer_all(loaded, [loaded.task.request_type.model_validate(loaded.bundle.manifest.example)]))


@pytest.mark.parametrize("kind", GENERATING)
def test_caches_are_on_the_card_and_rows_answer_there_as_they_do_alone(
    exports: Callable[[str], Exported], kind: str
) -> None:
    """Tokens may differ where two are equally likely but for rounding, since a batch of another size sums otherwise."""
    loaded = opened(exports, kind)
    assert isinstance(loaded.model, Seq2Seq)
    assert isinstance(loaded.model._caches, DeviceCaches)
    assert loaded.model._caches.past.device == "cuda"
    together = [output.tokens for output in compute(loaded.model, rows(loaded))]
    alone = [compute(loaded.model, [row])[0].tokens for row in rows(loaded)]
    same = sum(first == second for first, second in zip(together, alone, strict=True))
    assert same >= 0.9 * len(alone)


@pytest.mark.parametrize("kind", GENERATING)
def test_memory_does_not_grow(exports: Callable[[str], Exported], kind: str) -> None:
    loaded, gpu = opened(exports, kind), visible_gpu()
    assert gpu is not None
    used = []
    for _ in range(ROUNDS):
        compute(loaded.model, rows(loaded))
        used.append(gpu.memory_used_bytes())
    assert max(used) <= used[SETTLED]
