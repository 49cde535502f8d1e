"""Write a chart's ``values.schema.json`` from its ``values.yaml``: types, comments, ``@schema``.

Every object is closed, so helm refuses a mistyped value instead of ignoring it. A comment above a
value is its description. A line of it that begins with ``@schema`` is YAML that overrides the
derived schema. The items of a list are defined in ``<name>.schema.yaml``, as ``#/$defs/<name>``.

Usage: python charts/make_schema.py CHART
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

_TYPES = {
    "str": "string",
    "bool": "boolean",
    "int": "integer",
    "float": "number",
    "map": "object",
    "seq": "array",
    "null": "null",
}
_MARK = "@schema "


def main() -> None:
    """Write the schema of the chart that is named on the command line."""
    chart = Path(sys.argv[1])
    (chart / "values.schema.json").write_text(json.dumps(schema(chart), indent=2) + "\n")


def schema(chart: Path) -> dict[str, Any]:
    """Return the JSON Schema (draft 7, for helm) of the values in ``chart``."""
    text = (chart / "values.yaml").read_text()
    node = yaml.compose(text)
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"{chart.name} values"}
    derived = _derived(node, text.splitlines(), "")
    derived["properties"]["global"] = {"type": "object", "description": "Given by parent charts."}
    definitions = {
        path.name.partition(".")[0]: yaml.safe_load(path.read_text())
        for path in sorted(chart.glob("*.schema.yaml"))
    }
    return head | derived | {"$defs": definitions}


def _derived(node: yaml.Node, lines: list[str], comment: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    words = []
    for line in comment.splitlines():
        if line.startswith(_MARK):
            told |= yaml.safe_load(line.removeprefix(_MARK))
        else:
            words.append(line)
    found: dict[str, Any] = {"type": _TYPES[node.tag.rpartition(":")[2]]}
    if words:
        found["description"] = " ".join(words)
    if isinstance(node, yaml.MappingNode):
        found["additionalProperties"] = False
        if node.value:
            found["properties"] = {
                key.value: _derived(value, lines, _above(lines, key.start_mark.line))
                for key, value in node.value
            }
    return found | told


def _above(lines: list[str], line: int) -> str:
    """Return the comment that ends right above a line."""
    comment: list[str] = []
    while line > 0 and (found := re.fullmatch(r"\s*# ?(.*)", lines[line - 1])):
        comment.insert(0, found[1])
        line -= 1
    return "\n".join(comment)


if __name__ == "__main__":
    main()
