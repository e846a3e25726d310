"""`python -m models.evaluate` on a few rows of each data set: what it measures, and one sentence for what it cannot."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from models.bundle import MANIFEST
from models.evaluate.__main__ import main
from models.evaluate.recommendation import recommendation
from models.evaluate.result import BUNDLE
from models.evaluate.translation import TEST_SETS
from models.load import load
from models.train import data
from tests.models.embedded import TRANSLATION
from tests.tiny import ITEMS, file, write_bundle
from tests.train.rows import write_xz


def write_test_sets(root: Path) -> None:
    path = root / data.TRANSLATION_TESTS
    path.parent.mkdir()
    with tarfile.open(path, "w:xz") as archive:
        for name in TEST_SETS:
            content = b"The cat sleeps.\tLe chat dort.\n"
            member = tarfile.TarInfo(f"testsets_en_fr/{name}.tsv")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def beauty_shop(folder: Path, **limits: int) -> Path:
    """A bundle whose items are those of Amazon Beauty."""
    write_bundle(folder, "beauty", limits={"max_tokens": 20, **limits})
    (folder / "catalogue.json").write_text(json.dumps([{"item": f"{i + 1}", "title": ""} for i in range(ITEMS)]))
    return changed(folder, catalogue=file(folder, "catalogue.json"))


def changed(folder: Path, **fields: Any) -> Path:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | fields))
    return folder


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("translation", data.TRANSLATION_TESTS),
        ("summarization", data.arxiv_file("test")),
        ("question-answering", data.SQUAD_DEV),
    ],
)
def test_missing_data_is_named_before_the_model_is_loaded(
    task: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([task, "--data", str(tmp_path), "--bundle", str(tmp_path / "none")])
    assert f"--data: there is no file {tmp_path / name}" in capsys.readouterr().err


def test_a_recommender_needs_the_data_of_its_own_catalogue_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_xz(tmp_path / data.BEAUTY, "".join(f"{user} {' '.join(map(str, range(1, 51)))}\n" for user in range(4)))
    results = recommendation(load(beauty_shop(tmp_path / "beauty")), tmp_path, None)
    assert {result.dataset for result in results if result.system == BUNDLE} == {
        "Amazon Beauty, leave one out, 4 customers"
    }
    assert main(["recommendation", "--data", str(tmp_path)]) == 2
    assert f"; there is no file {tmp_path / data.ONLINE_RETAIL}" in capsys.readouterr().err


def test_histories_over_the_limit_are_read_and_nothing_of_them_is_recommended(tmp_path: Path) -> None:
    """Of 50 items 41 are known, so that the ten that are recommended must hold the one that is wanted."""
    rows = (f"{user} {' '.join(str((user + i) % ITEMS + 1) for i in range(41))}\n" for user in range(20))
    write_xz(tmp_path / data.BEAUTY, "".join(rows))
    results = recommendation(load(beauty_shop(tmp_path / "bundle", max_items=5)), tmp_path, None)
    assert [result.value for result in results if (result.system, result.metric) == (BUNDLE, "HR@10")] == [1.0]


def test_languages_are_given_as_to_heedful_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_test_sets(tmp_path)
    folder = tmp_path / "bundle"
    shutil.copytree(TRANSLATION, folder)
    languages = {"source": ["en"], "target": ["deu", "fra"]}
    changed(folder, languages=languages, language_tokens={"target": {"deu": {}, "fra": {}}})
    arguments = ["translation", "--data", str(tmp_path), "--bundle", str(folder)]
    assert main(arguments) == 2
    said = "--target-language must be one of deu, fra for this model, got nothing, and the model has no default\n"
    assert capsys.readouterr().err == said
    assert main([*arguments, "--source-language", "de", "--target-language", "fra"]) == 2
    assert capsys.readouterr().err == "--source-language must be one of en for this model, got 'de'\n"
    assert main([*arguments, "--source-language", "en", "--target-language", "fra"]) == 0
    assert "newstest2013" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target-language", "fra"], "languages can be given for translation only, the task is question-answering"),
        (["--limit", "0"], "--limit must be at least 1, got 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["question-answering", "--data", str(tmp_path), *options])
    assert words in capsys.readouterr().err
