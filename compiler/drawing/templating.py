"""The one way in which pages are made from templates."""

import jinja2


def environment() -> jinja2.Environment:
    """Templates of this package; what they insert is escaped, what they lack is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("prunec.compiler.drawing", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
