"""Every kind of error the API answers with: the `type`, `status` and `title` of RFC 9457.

`type` is the path `/problems/<slug>`, which the service itself explains.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProblemKind:
    slug: str
    status: int
    title: str
    meaning: str  # what to do about it

    @property
    def type(self) -> str:
        # RFC 9457 section 4.2.1: where the status says all there is to say.
        return f"/problems/{self.slug}" if self.slug else "about:blank"


INVALID_REQUEST = ProblemKind(
    "invalid-request",
    422,
    "The request is not acceptable",
    "A field is missing, unknown or out of range. `errors` names each place as a JSON pointer "
    "into the body (or the parameter) with the reason.",
)
MALFORMED_REQUEST = ProblemKind(
    "malformed-request",
    400,
    "The request cannot be read",
    "The body could not be parsed, or the Host header is missing.",
)
WRONG_HOST = ProblemKind(
    "wrong-host",
    400,
    "The Host header names another machine",
    "The service answers only under the loopback names it listens on, so that a web page cannot "
    "reach it through a name of its own. Use http://127.0.0.1:PORT or http://localhost:PORT.",
)
OTHER_ORIGIN = ProblemKind(
    "other-origin",
    403,
    "A page of another origin may not change anything",
    "A browser sent a changing request on behalf of another web page. Send it from a program, or "
    "from a page that this service served.",
)
NOT_FOUND = ProblemKind(
    "not-found", 404, "There is no such resource", "Check the path and the identifier in it."
)
METHOD_NOT_ALLOWED = ProblemKind(
    "method-not-allowed",
    405,
    "The resource does not know this method",
    "The Allow header lists the methods that it knows.",
)
JOB_FINISHED = ProblemKind(
    "job-finished",
    409,
    "The job has already finished",
    "A job that succeeded or failed cannot be cancelled. (Cancelling a cancelled job again is no "
    "error.)",
)
REPORT_GONE = ProblemKind(
    "report-gone",
    410,
    "The report's files are gone",
    "The report is recorded, but its files have been removed from the data folder. Run the probe "
    "again, or restore the folder.",
)
CONTENT_TOO_LARGE = ProblemKind(
    "content-too-large",
    413,
    "The request body is too large",
    "Send fewer or shorter prompts; the limit is DRIFTSCOPE_MAX_BODY_BYTES.",
)
QUEUE_FULL = ProblemKind(
    "queue-full",
    429,
    "Too many jobs are waiting",
    "Wait for Retry-After seconds, or cancel jobs; the limit is DRIFTSCOPE_MAX_QUEUED_JOBS.",
)
INTERNAL_ERROR = ProblemKind(
    "internal-error",
    500,
    "The service failed",
    "This is a bug of the service. Its log has the traceback beside the request_id.",
)
STORAGE_UNAVAILABLE = ProblemKind(
    "storage-unavailable",
    503,
    "The database does not answer",
    "It is locked or its disk is full or gone. Try again after Retry-After seconds; the log has "
    "the cause.",
)
NOT_READY = ProblemKind(
    "not-ready",
    503,
    "The service is not ready",
    "`checks` names what is wrong: database, migrations, data folder, free disk space or the job "
    "executor.",
)

KINDS = (
    INVALID_REQUEST,
    MALFORMED_REQUEST,
    WRONG_HOST,
    OTHER_ORIGIN,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    JOB_FINISHED,
    REPORT_GONE,
    CONTENT_TOO_LARGE,
    QUEUE_FULL,
    INTERNAL_ERROR,
    STORAGE_UNAVAILABLE,
    NOT_READY,
)
