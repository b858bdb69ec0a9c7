"""Command-line options made from the fields of request models, and read back into the models.

An option's type and default come from the field; order, panel and help are the command's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from driftscope_probes.errors import RequestError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Model = TypeVar("Model", bound=BaseModel)

#: Types that an option parses itself; every other field is given as text.
_SCALARS = (bool, int, float)
#: Help that lists the values of a Literal: "a, b or c."
CHOICES = "<choices>"
#: A longer default would crowd out the help.
MOST_SHOWN = 20


def fields(
    model: type[BaseModel],
    helps: Mapping[str, str],
    *,
    panel: str | None = None,
    flags: Mapping[str, str] | None = None,
) -> list[inspect.Parameter]:
    """One option for every name in `helps`, in that order. `flags` names them otherwise."""
    return [
        _parameter(name, model.model_fields[name], panel, text, (flags or {}).get(name))
        for name, text in helps.items()
    ]


def _parameter(
    name: str, field: FieldInfo, panel: str | None, text: str, flag: str | None
) -> inspect.Parameter:
    kinds = [part for part in _parts(field.annotation) if part is not NoneType]
    kind: Any = kinds[0] if len(kinds) == 1 and kinds[0] in _SCALARS else str
    default = inspect.Parameter.empty if field.is_required() else field.default
    if isinstance(default, list):
        default = ",".join(map(str, default))
    elif kind is str and isinstance(default, int):
        default = str(default)
    option = typer.Option(
        *([flag] if flag else []),
        help=_choices(kinds[0]) if text == CHOICES else text or None,
        show_default=default is None or len(str(default)) <= MOST_SHOWN,
        rich_help_panel=panel,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind if default is not None else kind | None, option],
    )


def _parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


def _choices(literal: Any) -> str:
    assert get_origin(literal) is Literal
    *first, last = get_args(literal)
    return f"{', '.join(first)} or {last}."


def request_options(
    *groups: Iterable[inspect.Parameter],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The command gets the values of these options as its first argument, by name of the field."""
    options = [option for group in groups for option in group]

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        def run(**values: Any) -> None:
            rest = {option.name: values.pop(option.name) for option in own}
            command(values, **rest)

        parameters = options + [o.replace(kind=inspect.Parameter.KEYWORD_ONLY) for o in own]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in parameters}
        return run

    return with_options


def checked(
    model: type[Model], values: Mapping[str, Any], *, command: str, whole: str | None = None
) -> Model:
    """Raises RequestError in the words of the command line.

    `whole` is what a fault of no single field is said of: by default the model with what it got.
    """
    own = {
        name: split(values[name]) if _is_list(field) else values[name]
        for name, field in model.model_fields.items()
        if name in values
    }
    try:
        return model(**own)
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            line = f"{'.'.join(map(str, fault['loc'])) or whole or model.__name__}: {fault['msg']}"
            if fault["loc"] or whole is None:
                line += f" (given: {fault['input']!r})"
            lines.append(line[:500])
        raise RequestError(
            "\n".join(lines), remedy=f"correct the option; see driftscope {command} --help."
        ) from error


def _is_list(field: FieldInfo) -> bool:
    return any(get_origin(part) is list for part in _parts(field.annotation))


def split(value: Any) -> Any:
    """The parts of a comma-separated text; anything else unchanged."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]
