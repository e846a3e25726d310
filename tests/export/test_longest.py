"""A limit that is more than a bundle's graphs hold is found by running them, and what knows no positions has none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle, open_bundle
from models.errors import BundleError
from models.export.longest import check_limits
from tests.export.checkpoints import FAMILIES
from tests.export.encoder_decoders import ENCODER_DECODERS
from tests.export.encoders import TESTED
from tests.export.exported import Exported
from tests.models.embedded import QUESTION_ANSWERING, RECOMMENDATION, SUMMARIZATION, TRANSLATION

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")


def with_limits(bundle: Bundle, **limits: Any) -> Bundle:
    changed = bundle.manifest.limits.model_copy(update=limits)
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"limits": changed}))


@pytest.mark.parametrize(
    ("folder", "limit", "held", "does"),
    [
        (TRANSLATION, "max_tokens", 128, "read"),
        (TRANSLATION, "max_new_tokens", 128, "write"),
        (SUMMARIZATION, "max_tokens", 256, "read"),
        (SUMMARIZATION, "max_new_tokens", 64, "write"),
        (QUESTION_ANSWERING, "max_tokens", 384, "read"),
        (RECOMMENDATION, "max_tokens", 100, "read"),
    ],
)
def test_the_graphs_say_how_much_they_hold(folder: Path, limit: str, held: int, does: str) -> None:
    bundle = open_bundle(folder)
    check_limits(bundle, "int8")
    for given in (held + 1, 10 * held):
        said = f"the int8 graphs {does} at most {held} tokens, limits.{limit} is {given}$"
        with pytest.raises(BundleError, match=said):
            check_limits(with_limits(bundle, **{limit: given}), "int8")


@pytest.mark.parametrize("family", [*FAMILIES, *ENCODER_DECODERS, *TESTED])
def test_the_bundles_of_every_family_hold_what_they_say(exports: Callable[[str], Exported], family: str) -> None:
    check_limits(exports(family).bundle, "fp32")


def test_distances_have_no_end(exports: Callable[[str], Exported]) -> None:
    check_limits(with_limits(exports("t5").bundle, max_tokens=1000, max_new_tokens=1000), "fp32")
