"""A term where it stands: its meaning as a tooltip, and the link to the glossary.

In a report that opens offline there is no glossary to go to: an abbreviation with the same words.
"""

from __future__ import annotations

from typing import Final

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from driftscope_service.numbers.glossary import OF_NUMBER, TERMS

GLOSSARY_PATH: Final = "/glossary"
#: Frame of a page that opens offline (report_template.SELF_CONTAINED).
_OFFLINE: Final = "pages/templates/self_contained.html.jinja"


@pass_context
def term(context: Context, slug: str, text: str | None = None) -> Markup:
    """`slug`: of numbers/glossary.py; `text`: what stands there, else the name of the term.

    Raises KeyError for a slug that the glossary does not have."""
    known = TERMS[slug]
    shown = escape(known.name if text is None else text)
    told = escape(known.told)
    if context.get("layout") == _OFFLINE:
        return Markup('<abbr class="term" title="{}">{}</abbr>').format(told, shown)
    link = '<a class="term" href="{}#{}" title="{}">{}</a>'
    return Markup(link).format(GLOSSARY_PATH, slug, told, shown)


@pass_context
def number_term(context: Context, name: str, text: str) -> Markup:
    """`text` with what the number `name` of the catalogue means, where the glossary has it."""
    slug = OF_NUMBER.get(name)
    return escape(text) if slug is None else term(context, slug, text)
