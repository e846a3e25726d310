"""A YAML file as values and as lines, so that a message about a value can name where it stands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from service.errors import SettingsError


@dataclass(frozen=True, slots=True, eq=False)
class YamlSource:
    """A file that was read.

    Args:
        path: as the operator wrote it.
        values: what it says.
        root: its nodes, which know their lines; None for an empty file.
    """

    path: Path
    values: dict[str, Any]
    root: Node | None

    def where(self, keys: Sequence[int | str]) -> str:
        """`path:line` of the value behind the keys, or of the nearest thing around it that the file has."""
        node, line = self.root, 1
        for key in keys:
            if isinstance(node, MappingNode):
                found = next((pair for pair in node.value if pair[0].value == key), None)
                if found is None:
                    break
                line, node = _line(found[0]), found[1]
            elif isinstance(node, SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = _line(node)
            else:
                break
        return f"{self.path}:{line}"


def read_yaml(path: Path) -> YamlSource:
    """Read a file that holds settings.

    Raises:
        SettingsError: it cannot be read, is not YAML, does not hold `name: value`, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise SettingsError(f"{place} cannot be read as YAML: {error.problem or error.context}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return YamlSource(path, {}, None)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SettingsError(f"{path} must hold settings as `name: value`, got {values!r}")
    for mapping in _mappings(root):
        first: dict[str, Node] = {}
        for key, _ in mapping.value:
            if (earlier := first.setdefault(str(key.value), key)) is not key:
                raise SettingsError(
                    f"{path}:{_line(key)}: {key.value} is set a second time; the first is in line {_line(earlier)}"
                )
    return YamlSource(path, values, root)


def _mappings(node: Node | None) -> Iterator[MappingNode]:
    if isinstance(node, MappingNode):
        yield node
        for _, value in node.value:
            yield from _mappings(value)
    elif isinstance(node, SequenceNode):
        for value in node.value:
            yield from _mappings(value)


def _line(node: Node) -> int:
    line: int = node.start_mark.line
    return line + 1
