"""A checkpoint of every family, exported and all served by one process over HTTP, answers what the original does."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import torch
from pydantic import TypeAdapter

from models.bundle import Bundle
from models.export.checkpoint import Checkpoint
from models.export.tokenizer import original_tokenizer
from models.task import Output, Task
from models.tasks import TASKS
from service.__main__ import main
from tests.export import encoders
from tests.export.checkpoints import EXAMPLES, TEXT
from tests.export.encoder_decoders import T5_TASKS
from tests.export.exported import Exported
from tests.serving import Service, start, stop

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")

GENERATING = ("marian", "bart", "pointer-bart", "opus", "mbart", "pegasus", "m2m_100", "t5", "flan", "mt5")
SCORING = ("sasrec", "sasrec-neighbours", "bert", *encoders.TESTED)
TEXTS = [TEXT, "Three callers wait beside the longest sentence.", "The model answers quickly.", "The cat saw the mat."]
NEW_TOKENS = 12

Settings = Mapping[str, Any]
"""`src_lang` and `tgt_lang` of a request."""

LANGUAGES: Mapping[str, list[Settings]] = {
    "opus": [{"tgt_lang": "deu"}, {"tgt_lang": "fra"}, {"tgt_lang": "zho_Hans", "src_lang": "en"}],
    "mbart": [{}, {"tgt_lang": "de_DE"}, {"src_lang": "ro_RO", "tgt_lang": "zh_CN"}],
    "m2m_100": [{"tgt_lang": "fr"}, {"tgt_lang": "de"}, {"src_lang": "zu", "tgt_lang": "en"}],
    "marian": [{}, {"src_lang": "en", "tgt_lang": "fr"}],
}


@pytest.fixture(scope="module")
def by_command(exports: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `heedful export` makes of a model of many languages that is to write one, without a recipe."""
    out = tmp_path_factory.mktemp("by-command") / "bundle"
    options = ["--task", "translation", "--target-language", "fr", "--precision", "fp32", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["heedful", "export", str(exports("m2m_100").checkpoint), *options])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 0
    return out


@pytest.fixture(scope="module")
def service(
    exports: Callable[[str], Exported], by_command: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    models = [
        {"bundle": str(exports(family).bundle.folder), "name": family, "precision": "fp32"}
        for family in (*GENERATING, *SCORING)
    ]
    models.append({"bundle": str(by_command), "name": "by-command"})
    (folder / "heedful.yaml").write_text(json.dumps({"models": models}))
    running = start("embedded", folder / "log", "--config", str(folder / "heedful.yaml"))
    yield running
    stop(running)
    assert running.process.returncode == 0, running.log.read_text()


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120) as client:
        yield client


@pytest.mark.parametrize("family", GENERATING)
def test_generated_texts_are_those_of_transformers(
    family: str, exports: Callable[[str], Exported], http: httpx.Client
) -> None:
    """Greedy and with beams, in every pair of languages that is asked for, all at the same time."""
    exported = exports(family)
    manifest = exported.bundle.manifest
    asked = [
        (text, languages, num_beams)
        for text in TEXTS
        for languages in LANGUAGES.get(family, [{}])
        for num_beams in (1, 3)
    ]

    def post(text: str, languages: Settings, num_beams: int) -> str:
        decoding = {"num_beams": num_beams, "max_new_tokens": NEW_TOKENS}
        body = {"inputs": text, "parameters": {**languages, "generate_parameters": decoding}}
        response = http.post(f"/v1/{manifest.task}/{family}", json=body)
        assert response.status_code == 200, response.text
        (answer,) = response.json()
        return str(next(iter(answer.values())))

    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(lambda case: post(*case), asked))
    original = Original(exported)
    assert [answer.strip() for answer in found] == [original.text(*case).strip() for case in asked]
    assert len(set(found)) >= 3, "answers that are all the same prove nothing"


class Original:
    """The checkpoint and its tokenizer as transformers loads them, used as its documentation shows."""

    def __init__(self, exported: Exported) -> None:
        self._family = exported.family
        self._model = exported.original.model
        self._tokenizer = original_tokenizer(exported.checkpoint)
        settings = exported.bundle.manifest.generation
        assert settings is not None
        self._settings = {"no_repeat_ngram_size": settings.no_repeat_ngram_size}  # the recipe's or the task's

    def text(self, text: str, languages: Settings, num_beams: int) -> str:
        target, forced = languages.get("tgt_lang"), {}
        if self._family in {"t5", "flan"}:
            text = T5_TASKS["translation_en_to_fr"]["prefix"] + text
        elif self._family == "opus":
            text = f">>{target}<< {text}"
        elif self._family in {"mbart", "m2m_100"}:
            self._tokenizer.src_lang = languages.get("src_lang", {"mbart": "en_XX", "m2m_100": "en"}[self._family])
            if target is not None:
                code = f"__{target}__" if self._family == "m2m_100" else target
                forced = {"forced_bos_token_id": self._tokenizer.convert_tokens_to_ids(code)}
        read = self._tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            written = self._model.generate(
                read["input_ids"],
                attention_mask=read["attention_mask"],
                num_beams=num_beams,
                max_length=NEW_TOKENS + 1,
                **forced,
                **self._settings,
            )
        return str(self._tokenizer.decode(written[0], skip_special_tokens=True))


@pytest.mark.parametrize("family", SCORING)
def test_scored_answers_are_those_of_the_checkpoint(
    family: str, exports: Callable[[str], Exported], http: httpx.Client
) -> None:
    exported = exports(family)
    manifest = exported.bundle.manifest
    request = encoders.REQUEST if family in encoders.TESTED else {**EXAMPLES[manifest.task], "parameters": {"top_k": 5}}
    response = http.post(f"/v1/{manifest.task}/{family}", json=request)
    assert response.status_code == 200, response.text
    expected, rows = by_checkpoint(exported.bundle, exported.original, request)
    if family in encoders.TESTED:
        assert rows > 1, "one window alone leaves the order of windows untested"
    answers = response.json()
    assert len(answers) == len(expected) > 1
    for answer, original in zip(answers, expected, strict=True):
        assert answer == {**original, "score": pytest.approx(original["score"], rel=1e-3)}
        if manifest.task == "question-answering":
            assert answer["answer"] == answer["answer"].strip() != ""
            assert answer["answer"] == request["inputs"]["context"][answer["start"] : answer["end"]]


def by_checkpoint(bundle: Bundle, checkpoint: Checkpoint, body: Mapping[str, Any]) -> tuple[Any, int]:
    """The response when the checkpoint computes the rows, and how many there are."""
    task = cast("Callable[[Bundle], Task[Any, Any]]", TASKS[bundle.manifest.task])(bundle)
    solution = task.solve(task.request_type.model_validate(body))
    rows = next(solution)
    with pytest.raises(StopIteration) as stop_:
        solution.send([Output((), checkpoint.answer(row), "stop") for row in rows])
    response: Any = stop_.value.value
    return TypeAdapter[Any](task.response_type).dump_python(response, mode="json", exclude_none=True), len(rows)


def test_languages_that_must_be_said_and_those_that_are_not_known_are_named(http: httpx.Client) -> None:
    for family, field, parameters, words in (
        ("opus", "tgt_lang", {}, "one of deu, fra, zho_Hans for this model, got nothing, and the model has no default"),
        ("opus", "tgt_lang", {"tgt_lang": "fr"}, "one of fra, deu, zho_Hans for this model, got 'fr'"),
        (
            "m2m_100",
            "tgt_lang",
            {},
            "one of af, am, ar, ast, az, ba, be, bg, bn, br, bs, ca and 88 more for this model",
        ),
        ("m2m_100", "src_lang", {"tgt_lang": "fr", "src_lang": "fra"}, "one of fr, af, am"),
        ("mbart", "src_lang", {"src_lang": "en"}, "one of en_XX, af_ZA, ar_AR"),
    ):
        response = http.post(f"/v1/translation/{family}", json={"inputs": TEXT, "parameters": parameters})
        assert response.status_code == 422
        problem = response.json()
        assert f"parameters/{field} must be {words}" in problem["detail"]
        assert f"/parameters/{field}" in response.text


def test_what_the_command_exports_is_served_and_answers_in_the_language_that_it_was_given(
    exports: Callable[[str], Exported], http: httpx.Client
) -> None:
    asked = [(text, {"tgt_lang": "fr"}, num_beams) for text in TEXTS for num_beams in (1, 3)]
    decoding = [{"num_beams": num_beams, "max_new_tokens": NEW_TOKENS} for *_, num_beams in asked]
    original = Original(exports("m2m_100"))
    for (text, languages, num_beams), generate in zip(asked, decoding, strict=True):
        body = {"inputs": text, "parameters": {"generate_parameters": generate | {"no_repeat_ngram_size": 2}}}
        response = http.post("/v1/translation/by-command", json=body)
        assert response.status_code == 200, response.text
        assert response.json()[0]["translation_text"].strip() == original.text(text, languages, num_beams).strip()


def test_the_terminal_is_asked_for_languages_by_options(
    exports: Callable[[str], Exported], http: httpx.Client, tmp_path: Path
) -> None:
    settings = {"models": [{"bundle": str(exports("opus").bundle.folder)}]}
    (tmp_path / "heedful.yaml").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "service", "run", "translation", TEXT, "--config", str(tmp_path / "heedful.yaml")]
    said = subprocess.run([*command, "--target-language", "fra"], capture_output=True, check=True, text=True)
    answer = http.post("/v1/translation/opus", json={"inputs": TEXT, "parameters": {"tgt_lang": "fra"}}).json()
    assert said.stdout == f"{answer[0]['translation_text']}\n"
    refused = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.endswith(
        "heedful: --target-language must be one of deu, fra, zho_Hans for this model, got nothing, and the model has no"
        " default\n"
    )


def test_every_language_is_on_the_card(http: httpx.Client) -> None:
    cards = {card["name"]: card for card in http.get("/v1/models").json()}
    assert cards["opus"]["languages"] == {"source": ["en"], "target": ["deu", "fra", "zho_Hans"]}
    assert len(cards["m2m_100"]["languages"]["target"]) == 100
    assert cards["m2m_100"]["example"]["parameters"] == {"tgt_lang": "af"}
