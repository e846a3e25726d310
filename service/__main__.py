"""The heedful command and what it does by itself; a mistake of its user is one sentence and exit code 2."""

import asyncio
import json
import shlex
import socket
import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from typer.exceptions import TyperException

from models.bundle import open_bundle
from models.errors import BundleError, InvalidInput, ModelError
from models.export.longest import check_limits
from models.export.sample import TOLERANCE, Distance, check_sample
from models.load import example_of
from models.session import open_session
from models.tasks import TASKS
from service import logs
from service.bench import bench
from service.configuration import load_settings
from service.contract import ModelCard
from service.errors import ServiceError, SettingsError, StartError, UsageError
from service.export import export
from service.hosting import Call, LocalHost, model_cards
from service.operate import config, deploy, environment, remove, rollback
from service.ray_environment import address_file, prepare, run_folder
from service.session import in_own_session
from service.settings import ModelSettings, Settings
from service.terminal import by_option, lines_of, mistyped, request_of

app = typer.Typer(
    name="heedful",
    help="Serve attention models: many callers share one model, token by token.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
progress = Console(stderr=True)

LISTED_LANGUAGES = 8

Config = Annotated[
    Path | None, typer.Option(help="YAML file with settings; the environment (HEEDFUL_PORT, …) wins over it.")
]


# HAProxy reaches the replicas of its machine at 127.0.0.1, and they listen where it does.
RAY_HOSTS = ("127.0.0.1", "localhost", "0.0.0.0")  # noqa: S104 - for the operator to choose


class Runtime(StrEnum):
    """What runs the models: a Ray Serve cluster, or this process alone."""

    ray = "ray"
    embedded = "embedded"


@app.command(epilog="Example: `heedful serve --port 8123`, or `heedful serve --runtime embedded` without a cluster.")
def serve(
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; the variable PORT sets it too.  [default: 8000]")] = None,
    runtime: Annotated[Runtime, typer.Option(help="A Ray Serve cluster, or one process.")] = Runtime.ray,
) -> None:
    """Serve the models over HTTP until Ctrl-C."""
    settings = load_settings(config, host=host, port=port)
    logs.configure(settings.log_level, settings.log_format)
    cards = model_cards(settings)
    for model in settings.models:
        open_bundle(model.bundle)
    began = time.monotonic()

    def ready() -> None:
        typer.echo(_ready_line(settings, cards, time.monotonic() - began))

    if runtime is Runtime.ray and settings.host not in RAY_HOSTS:
        raise UsageError(
            f"setting host: on Ray it is one of {', '.join(RAY_HOSTS)}, got {settings.host}; "
            "choose one of them, or --runtime embedded"
        )
    listener = _listen(settings)
    if runtime is Runtime.embedded:
        if any(model.canary for model in settings.models):
            listener.close()
            raise UsageError("a canary needs the cluster: leave out --runtime embedded, or the setting canary")
        from service.embedded import run_embedded

        run_embedded(settings, listener, ready)
        return
    listener.close()
    with run_folder() as folder:
        sys.exit(in_own_session(lambda: _exit_code(lambda: _cluster(settings, folder, ready))))


def _cluster(settings: Settings, folder: Path, ready: Callable[[], None]) -> None:
    prepare(folder)
    from service.cluster import run_cluster

    noted = address_file(settings.port)

    def ready_at(address: str) -> None:
        noted.parent.mkdir(parents=True, exist_ok=True)
        noted.write_text(address, encoding="utf-8")
        ready()

    try:
        run_cluster(settings, folder, ready_at)
    finally:
        noted.unlink(missing_ok=True)


@app.command(epilog='Example: `heedful run translation "Good morning." "How are you?"`')
def run(
    task: Annotated[str, typer.Argument(help=f"One of {', '.join(TASKS)}.", show_default=False)],
    text: Annotated[
        list[str],
        typer.Argument(
            help="Texts; for question-answering QUESTION CONTEXT, for recommendation items.", show_default=False
        ),
    ],
    config: Config = None,
    source_language: Annotated[
        str | None, typer.Option(help="For translation: what the texts are in, by the model's own code.")
    ] = None,
    target_language: Annotated[str | None, typer.Option(help="For translation: what to translate into.")] = None,
) -> None:
    """Answer once on the terminal, without a server."""
    if task not in TASKS:
        raise UsageError(f"the task {task!r} is unknown; choose one of {', '.join(TASKS)}")
    asked = {"src_lang": source_language, "tgt_lang": target_language}
    request = request_of(task, text, {name: code for name, code in asked.items() if code is not None})
    settings = load_settings(config)
    logs.configure("warning")
    chosen = [model for model, card in zip(settings.models, model_cards(settings), strict=True) if card.task == task]
    if not chosen:
        raise UsageError(f"no model for {task} is configured; add a bundle to the setting models")
    with progress.status("loading the model"):
        try:
            answer = asyncio.run(_answer(settings.model_copy(update={"models": (chosen[0],)}), request))
        except InvalidInput as error:
            raise UsageError(by_option(error)) from None
    for line in lines_of(task, answer):
        typer.echo(line)


@app.command(epilog="Example: `heedful models --config heedful.yaml`")
def models(config: Config = None) -> None:
    """List the models: task, name, precision, size, languages, limits, measured quality."""
    table = Table("task", "name", "precision", "parameters", "size", "languages", "limits", "quality")
    for card in model_cards(load_settings(config)):
        quality = "\n".join(f"{each.metric} {each.value:g} on {each.dataset}" for each in card.quality)
        languages = " → ".join(_codes(codes) for codes in (card.languages.source, card.languages.target) if codes)
        size = f"{card.bytes / 1e6:.1f} MB"
        parameters = f"{card.parameters / 1e6:.1f} M"
        table.add_row(card.task, card.name, card.precision, parameters, size, languages, _limits(card), quality)
    Console().print(table)


app.command(
    epilog="Example: `heedful export Helsinki-NLP/opus-mt-en-de --task translation --out bundles/en-de`, or a directory"
    " in place of the model's id."
)(export)


app.command(epilog="Example: `heedful bench models/bundles/translation --callers 8 --callers 32`")(bench)


@app.command(epilog="Example: `heedful check models/bundles/translation`")
def check(bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)]) -> None:
    """Verify a bundle: hashes, graph signatures, and in every precision its own example, parity and limits."""
    logs.configure("warning")
    with progress.status("hashing files"):
        opened = open_bundle(bundle)
    manifest, request = opened.manifest, example_of(opened)
    files = list(manifest.files())
    typer.echo(
        f"{manifest.name} {manifest.version}: {len(files)} files hash to what the manifest says,"
        f" {sum(file.bytes for file in files) / 1e6:.1f} MB"
    )
    if manifest.shortlist is not None:
        typer.echo(
            f"a shortlist of {manifest.shortlist.bytes / 1e6:.1f} MB: a row writes what is likely for its source"
        )
    for precision in manifest.precisions:
        settings = Settings(models=(ModelSettings(bundle=bundle, precision=precision),))
        with progress.status(f"loading the {precision} graphs and answering the example"):
            answer = asyncio.run(_answer(settings, request))
            if "explain" in manifest.precisions[precision].graphs:
                open_session(opened, precision, "explain")  # no answer has needed it
        size = sum(file.bytes for file in manifest.precisions[precision].files()) / 1e6
        typer.echo(f"{precision}, {size:.1f} MB: the graphs match their signatures; {json.dumps(manifest.example)}")
        for line in lines_of(manifest.task, answer):
            typer.echo(f"  → {line}")
        with progress.status(f"comparing the {precision} graphs with the checkpoint's answers"):
            found = check_sample(opened, precision)
        typer.echo(f"{precision}: {_parity(found, TOLERANCE[precision])}")
        with progress.status(f"running the {precision} graphs as far as the limits go"):
            check_limits(opened, precision)
    typer.echo(f"{bundle} is whole: serve it with HEEDFUL_BUNDLES={bundle.parent} heedful serve")


app.command(epilog="Example: `heedful config --config heedful.yaml --serve > serve.yaml`")(config)
app.command(epilog='Example: `eval "$(heedful environment)" && ray start --head`')(environment)
app.command(epilog="Example: `heedful deploy en-fr bundles/en-fr-2`, or with `--canary 5` for a share of the requests")(
    deploy
)
app.command(epilog="Example: `heedful remove en-fr`")(remove)
app.command(epilog="Example: `heedful rollback en-fr`")(rollback)


def main() -> None:
    """Run the command; without a word behind it, it shows its help."""
    words = sys.argv[1:] or ["--help"]
    sys.exit(_exit_code(lambda: app(words, prog_name="heedful", standalone_mode=False)))


def _exit_code(run: Callable[[], int | None]) -> int:
    """That of the command, 2 after one sentence about what the user can mend."""
    try:
        return run() or 0
    except TyperException as error:
        typer.echo(f"heedful: {mistyped(error)}", err=True)
    except BundleError as error:
        typer.echo(f"heedful: {error}; restore the bundle, or use another", err=True)
    except (UsageError, SettingsError, StartError, ModelError, ServiceError) as error:
        typer.echo(f"heedful: {error}", err=True)
    return 2


async def _answer(settings: Settings, request: BaseModel) -> Any:
    host = LocalHost(settings)
    try:
        await host.start()
        deadline = time.monotonic() + settings.request_timeout_ms / 1e3
        answer, _ = await host.answer(Call(host.cards[0], request, deadline))
    finally:
        host.stop()
    return answer


def _codes(languages: Sequence[str]) -> str:
    """As many as a cell bears; `GET /v1/models` lists all."""
    if len(languages) <= LISTED_LANGUAGES:
        return ", ".join(languages)
    return f"{', '.join(languages[:LISTED_LANGUAGES])} and {len(languages) - LISTED_LANGUAGES} more"


def _limits(card: ModelCard) -> str:
    """Of one row, in tokens; a history is counted in items."""
    limits = card.limits
    if card.task == "recommendation":
        return f"{limits.max_items} items"
    produced = f", {limits.max_new_tokens} out" if card.task in {"translation", "summarization"} else ""
    return f"{limits.max_tokens} tokens in{produced}"


def _parity(found: Distance | None, most: float) -> str:
    if found is None:
        return "the bundle carries no answers of its checkpoint to compare with"
    return (
        f"relative error {found.relative_error:.1e} against the checkpoint's answers, at most {most:g} is allowed;"
        f" same choice {found.agreement:.1%}"
    )


def _ready_line(settings: Settings, cards: list[ModelCard], seconds: float) -> str:
    card = next((card for card in cards if card.task == "translation"), cards[0])
    example = shlex.quote(json.dumps(card.example, ensure_ascii=False))
    command = f"curl {settings.url}{card.routes[0]} -H 'Content-Type: application/json' -d {example}"
    return f"Heedful is ready at {settings.url} after {seconds:.1f} s. Try: {command}"


def _listen(settings: Settings) -> socket.socket:
    """A socket on the service's address.

    Raises:
        UsageError: the port is taken, or the address is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise UsageError(
            f"cannot listen on {settings.host} port {settings.port}: {reason}; choose another with --port or --host"
        ) from None


if __name__ == "__main__":
    main()
