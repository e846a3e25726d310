"""How `make docs` builds the site: Sphinx, Markdown pages, and references made from the code itself."""

import importlib.metadata
import json
from pathlib import Path

from service.gateway import create_app
from service.hosting import LocalHost
from service.settings import Settings

project = "Heedful"
release = version = importlib.metadata.version("heedful")
project_copyright = "the Heedful authors, Apache-2.0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.openapi",
]
html_theme = "furo"
html_title = f"Heedful {release}"
myst_heading_anchors = 3
default_role = "code"  # docstrings mark names as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "description"

OPENAPI = Path(__file__).parents[1] / "build" / "openapi.json"
OPENAPI.parent.mkdir(exist_ok=True)
OPENAPI.write_text(json.dumps(create_app(LocalHost(Settings()), Settings()).openapi()), encoding="utf-8")
