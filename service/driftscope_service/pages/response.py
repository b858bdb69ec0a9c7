"""Headers of every page: what it may load and run, which is only what this service serves.

No inline script or style anywhere, style attributes included; nothing is evaluated from text.
Values that a template would write into a style go into classes or into attributes of an SVG.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # The canvas of a plot is saved as a data: image.
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
PAGE_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    # Names of runs stand in the address. With no-referrer the browser would send a form of ours
    # with the Origin null, which the host guard refuses.
    "Referrer-Policy": "same-origin",
    # Numbers change with every step; a page that a browser kept would show old ones as new.
    "Cache-Control": "no-store",
}
