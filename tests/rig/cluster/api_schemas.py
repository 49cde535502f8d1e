"""Make JSON Schemas for kubeconform from published OpenAPI descriptions and definitions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

LOCATION = "{{ .ResourceKind }}{{ .KindSuffix }}.json"
"""File name of a kind's schema, as a template of kubeconform."""


def write_schemas(folder: Path, swagger: Path, crds: Path) -> None:
    """Write one strict schema a kind. An unknown field is an error.

    Args:
        folder: destination of the schemas.
        swagger: Kubernetes's OpenAPI 2 description.
        crds: folder of CustomResourceDefinitions.
    """
    definitions = json.loads(swagger.read_text())["definitions"]
    kinds = {
        name: found.pop("x-kubernetes-group-version-kind", [])
        for name, found in definitions.items()
    }
    for found in definitions.values():
        _close(found)
    text = json.dumps({"definitions": definitions})
    text = text.replace('"#/definitions/', '"definitions.json#/definitions/')
    (folder / "definitions.json").write_text(text)
    for name, named in kinds.items():
        for each in named:
            schema = {"$ref": f"definitions.json#/definitions/{name}"}
            _write(folder, each["kind"], each["group"], each["version"], schema)
    for path in crds.iterdir():
        for each in yaml.safe_load_all(path.read_text()):
            spec = each["spec"]
            for version in spec["versions"]:
                schema = version["schema"]["openAPIV3Schema"]
                _close(schema)
                _write(folder, spec["names"]["kind"], spec["group"], version["name"], schema)


def _close(schema: dict[str, Any]) -> None:
    """Forbid unknown fields at every depth."""
    if schema.pop("x-kubernetes-int-or-string", False) or schema.get("format") == "int-or-string":
        schema.clear()
        schema["type"] = ["string", "integer"]
        return
    properties = schema.get("properties", {})
    if properties and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    for each in [*properties.values(), schema.get("items"), schema.get("additionalProperties")]:
        if isinstance(each, dict):
            _close(each)


def _write(folder: Path, kind: str, group: str, version: str, schema: dict[str, Any]) -> None:
    above = f"{group.partition('.')[0]}-" if group else ""
    (folder / f"{kind.lower()}-{above}{version}.json").write_text(json.dumps(schema))
