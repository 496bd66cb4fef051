"""Rules about the run form: its fields and their defaults."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.lint.compiled import Compiled

MAX_FIELDS = 21


def fields_have_defaults(compiled: Compiled) -> Iterator[str]:
    """The run form keeps Start disabled, and kfp.local fails, where a default is missing."""
    for name, field in compiled.fields.items():
        if field.get("defaultValue") is None:
            yield f"the parameter {name} has no default, so the form cannot be started; give it one that is not None"
        elif "literals" in field and field["defaultValue"] not in field["literals"]:
            yield f"the default of {name} is none of its literals, so the server refuses it; add it to them"


def fields_are_plain(compiled: Compiled) -> Iterator[str]:
    """Lists and dicts are a JSON editor in the form, and integers inside of them become floats."""
    for name, field in compiled.fields.items():
        if field.get("parameterType") in ("STRUCT", "LIST"):
            yield f"the parameter {name} is a list or dict, whose integers turn into floats; take a text and parse it"


def fields_are_few(compiled: Compiled) -> Iterator[str]:
    """The form is one long column in alphabetical order."""
    if (count := len(compiled.fields)) > MAX_FIELDS:
        yield f"the run form has {count} fields, more than {MAX_FIELDS} is too many to read; move some into one text"


def no_artifacts_at_the_root(compiled: Compiled) -> Iterator[str]:
    """Neither the form nor kfp.local can give one."""
    for name, artifact in compiled.root.get("inputDefinitions", {}).get("artifacts", {}).items():
        if not artifact.get("isOptional"):
            yield f"the pipeline wants an artifact {name}, which no form can give; import it from a URI parameter"
