"""Every operation of the API against its own OpenAPI document, with made-up and malformed requests.

Each answer has a documented status, headers and body, and none is a 5xx; with keys on, nothing is
answered without one. `DRIFTSCOPE_CONTRACT_EXAMPLES`-many requests per operation and phase.
"""

from __future__ import annotations
