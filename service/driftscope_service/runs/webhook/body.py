"""A notice as the body of a request, in the form of a receiver, and its signature.

In: Notice. Out: bytes and headers. docs/webhook.md has the same as a reader checks it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_service.numbers.diagnosis_words import UNEXPLAINED, verdict_words
from driftscope_service.pages import navigation
from driftscope_service.runs.webhook.notices import Answer, Notice
from driftscope_service.settings import Settings

WebhookFormat = Literal["json", "slack"]
EVENT: Final = "run.answer_changed"
#: Of the signature: another way to sign would have another name beside it.
VERSION: Final = "v1"
TIMESTAMP, SIGNATURE = "Driftscope-Timestamp", "Driftscope-Signature"
#: The same for every attempt at one notice: who has seen it leaves it.
DELIVERY: Final = "Driftscope-Delivery"


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where notices go, as the operator set it."""

    url: str
    form: WebhookFormat
    secret: str  # "": unsigned
    public_url: str  # of the service, without a slash at the end


def webhook_of(settings: Settings) -> Webhook | None:
    """None where the operator set none."""
    url = settings.webhook_url.get_secret_value()
    if not url:
        return None
    secret = settings.webhook_secret.get_secret_value()
    return Webhook(url, settings.webhook_format, secret, settings.address_for_people)


def body_of(notice: Notice, webhook: Webhook) -> bytes:
    made = _FORMS[webhook.form](notice, webhook)
    return json.dumps(made, allow_nan=False, ensure_ascii=False).encode()


def headers_of(notice: Notice, webhook: Webhook, body: bytes, now_s: int) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "driftscope",
        DELIVERY: notice.id,
    }
    if webhook.secret:
        signed = signature(webhook.secret, now_s, body)
        headers |= {TIMESTAMP: str(now_s), SIGNATURE: f"{VERSION}={signed}"}
    return headers


def signature(secret: str, timestamp_s: int, body: bytes) -> str:
    """HMAC-SHA256 of `TIMESTAMP.BODY`, in hex: an old request cannot be sent again later."""
    return hmac.new(secret.encode(), b"%d." % timestamp_s + body, hashlib.sha256).hexdigest()


def _json(notice: Notice, webhook: Webhook) -> dict[str, Any]:
    return {
        "event": EVENT,
        "id": notice.id,
        "at": notice.created_at.isoformat().replace("+00:00", "Z"),
        "run": notice.run,
        "model": notice.model,
        "step": notice.step,
        "verdict": notice.verdict,
        "excess": notice.excess,
        "cause": notice.cause,
        "cause_title": _title(notice.cause),
        "confidence": notice.confidence,
        "previous": {"verdict": notice.previous_verdict, "cause": notice.previous_cause},
        "page": _page(notice, webhook),
        "cause_page": _cause_page(notice, webhook),
    }


def _slack(notice: Notice, webhook: Webhook) -> dict[str, Any]:
    """`text` alone: what Slack takes Mattermost, Rocket.Chat and Discord's /slack take as well."""
    run = f"<{_page(notice, webhook)}|{_escaped(notice.run)}, step {notice.step}>"
    said = f"{run}: *{_words(Answer(notice.verdict, notice.cause), notice.confidence)}*"
    title = _title(notice.cause)
    lines = [f"{said}, was {_words(notice.previous, None)}"]
    if title is not None:
        page = _cause_page(notice, webhook)
        lines.append(f"{_escaped(title)}: <{page}|what to do>")
    return {"text": "\n".join(lines)}


_FORMS: Final[Mapping[WebhookFormat, Callable[[Notice, Webhook], dict[str, Any]]]] = {
    "json": _json,
    "slack": _slack,
}


def _words(answer: Answer, confidence: float | None) -> str:
    if answer.verdict is None:
        return "without an answer"
    sure = "" if confidence is None else f" ({confidence:.2f})"
    cause = "" if answer.cause is None else f", {answer.cause}{sure}"
    return f"{verdict_words(answer.verdict)}{cause}"


def _title(cause: str | None) -> str | None:
    known = None if cause is None else catalogue().by_name.get(cause)
    return None if known is None else known.title


def _page(notice: Notice, webhook: Webhook) -> str:
    return f"{webhook.public_url}{navigation.step_page(notice.run, notice.step)}"


def _cause_page(notice: Notice, webhook: Webhook) -> str | None:
    known = None if notice.cause is None else catalogue().by_name.get(notice.cause)
    if known is None and notice.cause != UNEXPLAINED:
        return None
    # Of a cause that another package offers there is the catalogue's page alone.
    folder = "causes" if known is not None and known.offered_by else "docs/causes"
    return f"{webhook.public_url}/{folder}/{notice.cause}"


def _escaped(text: str) -> str:
    """Slack's control characters, and no others."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
