"""The one way in which pages are made from templates."""

import json

import jinja2
from markupsafe import Markup


def environment() -> jinja2.Environment:
    """Templates of this package; what they insert is escaped, what they lack is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("prunec.compiler.drawing", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def script_json(value: object) -> Markup:
    """JSON that is safe inside a script element."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
