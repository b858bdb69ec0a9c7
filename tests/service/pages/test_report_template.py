"""Templates: what is missing is an error, what is shown is escaped, numbers have their words."""

from __future__ import annotations

import pytest
from jinja2 import TemplateNotFound, UndefinedError

from driftscope_service.pages.report_template import environment


def test_what_is_not_given_is_an_error_and_markup_is_escaped() -> None:
    template = environment().from_string("<p>{{ shown }}</p>")
    assert template.render(shown='<b a="1">') == "<p>&lt;b a=&#34;1&#34;&gt;</p>"
    with pytest.raises(UndefinedError, match="shown"):
        template.render(show=1)


def test_templates_are_files_of_this_package_or_of_the_one_named() -> None:
    own = environment().get_template("pages/templates/error.html.jinja")
    named = environment().get_template("driftscope_service.pages:templates/error.html.jinja")
    assert list(own.blocks) == list(named.blocks) != []
    for name in ("pages/templates/nothing", "driftscope_service.pages:error.html.jinja"):
        with pytest.raises(TemplateNotFound):
            environment().get_template(name)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 1.0])
def test_infinity_can_be_told(value: float) -> None:
    told = environment().from_string("{{ value is infinite }}").render(value=value)
    assert told == str(abs(value) == float("inf"))
