"""The README's picture of the architecture is what the code is."""

import re
from pathlib import Path

import grimp

README = Path(__file__).parents[1] / "README.md"


def test_every_arrow_of_the_picture_is_an_import() -> None:
    picture = README.read_text(encoding="utf-8").partition("```mermaid")[2].partition("```")[0]
    modules = dict(re.findall(r'(\w+)\["([\w.]+)<br/>', picture))
    arrows = re.findall(r'(\w+)(?:\["[^"]*"\])? --> (\w+)', picture)
    assert len(arrows) > 10
    graph = grimp.build_graph("models", "service")
    for importer, imported in arrows:
        assert graph.direct_import_exists(importer=modules[importer], imported=modules[imported], as_packages=True), (
            f"{modules[importer]} does not import {modules[imported]}"
        )
