"""What an operator does beside starting it: look at the configuration, and change the models of a running service."""

import os
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from models.bundle import open_bundle
from service.configuration import load_settings
from service.contract import ModelCard
from service.errors import UsageError
from service.hosting import model_cards
from service.ray_environment import address_file, of_node, prepare, run_folder
from service.releases import check_name, deployed, removed, rolled_back
from service.serve_config import serve_config
from service.settings import Settings

progress = Console(stderr=True)

Change = Callable[[Settings, list[ModelCard]], Settings]

Config = Annotated[
    Path | None, typer.Option(help="YAML file with settings; the environment (HEEDFUL_PORT, …) wins over it.")
]
Name = Annotated[str, typer.Argument(help="The model's name, or TASK/NAME.", show_default=False)]
Port = Annotated[
    int | None, typer.Option(help="Of the service, on this machine; the variable PORT sets it too.  [default: 8000]")
]
Address = Annotated[
    str | None, typer.Option(help="Of its Ray cluster, HOST:PORT; found by the service's port unless given.")
]


def config(
    config: Config = None,
    serve: Annotated[bool, typer.Option("--serve", help="As the config file of Ray Serve that it means.")] = False,
) -> None:
    """Print the settings that are in force, or the Ray Serve config that they mean."""
    settings = load_settings(config)
    cards = model_cards(settings)
    plain = serve_config(settings, cards) if serve else _as_given(settings)
    typer.echo(yaml.dump(plain, Dumper=_Plain, sort_keys=False, allow_unicode=True), nl=False)


def _as_given(settings: Settings) -> dict[str, Any]:
    """As a file with them would be, in which `autoscaling` stands in place of `replicas`."""
    in_place_of = {"replicas"} if settings.autoscaling is not None else None
    return settings.model_dump(mode="json", exclude_none=True, exclude=in_place_of)


class _Plain(yaml.SafeDumper):
    """Without anchors, which a reader would have to follow."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the library's signature
        return True


def environment() -> None:
    """Print what a node of a Ray cluster needs in its environment before `ray start`, for a shell to evaluate."""
    for name, value in of_node().items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def deploy(
    name: Name,
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder, on every node.", show_default=False)],
    canary: Annotated[
        float | None,
        typer.Option(min=0.01, max=100, help="Percent of the requests for it; the version there is answers the rest."),
    ] = None,
    port: Port = None,
    address: Address = None,
) -> None:
    """Add a model to a running service, or replace its bundle; no request is lost, a broken bundle changes nothing."""
    folder = bundle.absolute()
    task = open_bundle(folder).manifest.task
    check_name(name, folder, task)  # before anything is asked of the cluster

    def change(settings: Settings, cards: list[ModelCard]) -> Settings:
        return deployed(settings, cards, name, folder, task, canary_percent=canary)

    _change(change, port, address)


def remove(name: Name, port: Port = None, address: Address = None) -> None:
    """Take a model from a running service; what it has accepted is answered."""
    _change(partial(_named, removed, name), port, address)


def rollback(name: Name, port: Port = None, address: Address = None) -> None:
    """End a model's canary, or return to the bundle that was served before the last `deploy`."""
    _change(partial(_named, rolled_back, name), port, address)


def _named(
    change: Callable[[Settings, list[ModelCard], str], Settings], name: str, settings: Settings, cards: list[ModelCard]
) -> Settings:
    return change(settings, cards, name)


def _change(change: Change, port: int | None, address: str | None) -> None:
    settings = load_settings(port=port)
    address = address or settings.ray_address or os.environ.get("RAY_ADDRESS") or _noted_address(settings.port)
    with run_folder() as folder:
        prepare(folder)
        from service.cluster import change_running

        with progress.status("replacing replicas while the old ones serve"):
            changed = change_running(address, folder, lambda now: change(now, model_cards(now)))
    typer.echo(f"done: {', '.join(changed) or 'nothing had to change'}")


def _noted_address(port: int) -> str:
    try:
        return address_file(port).read_text(encoding="utf-8")
    except OSError:
        raise UsageError(
            f"no service on Ray was started here on port {port}; name its --port, or its Ray cluster with --address"
        ) from None
