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
    "The body could not be parsed, the Host header is missing or there are two, or the address or "
    "a header holds a NUL character.",
)
KEY_IN_ADDRESS = ProblemKind(
    "key-in-address",
    400,
    "An API key stands in the address",
    "Addresses are kept by browsers, proxies and logs. Send the key in the header "
    "`Authorization: Bearer dsk_…`. This key may have been seen on its way: revoke it and make "
    "another one.",
)
WRONG_HOST = ProblemKind(
    "wrong-host",
    400,
    "The Host header names another machine",
    "The service answers only under its own addresses, so that a web page cannot reach it through "
    "a name of its own. Use http://127.0.0.1:PORT or http://localhost:PORT, or, where it listens "
    "on other addresses, an IP address. Further names are given in DRIFTSCOPE_ALLOWED_HOSTS.",
)
UNAUTHENTICATED = ProblemKind(
    "unauthenticated",
    401,
    "An API key is needed",
    "Send `Authorization: Bearer dsk_…` with a key that is neither revoked nor expired. "
    "`driftscope keys create --name NAME --scope read` makes one on the machine of the service.",
)
SCOPE_MISSING = ProblemKind(
    "scope-missing",
    403,
    "The API key does not allow this",
    "The scope that is needed is in `detail` and in the header WWW-Authenticate: ingest pushes "
    "steps, read reads, probe starts and cancels probes, admin does all. Use a key that has it.",
)
RUN_OUT_OF_REACH = ProblemKind(
    "run-out-of-reach",
    403,
    "The API key is bound to other runs",
    "The key sees and changes only the runs whose names begin with its prefix, which is in "
    "`detail`. Name the run so, or use a key that is not bound (`driftscope keys create` without "
    "--run-prefix).",
)
OTHER_ORIGIN = ProblemKind(
    "other-origin",
    403,
    "A page of another origin may not change anything",
    "A browser sent a changing request on behalf of another web page. Send it from a program, or "
    "from a page that this service served.",
)
MALFORMED_STEP = ProblemKind(
    "malformed-step",
    400,
    "The step is malformed",
    "The body is not a step in the push format, or its parts disagree: `detail` says what is "
    "wrong, `remedy` what to do. Nothing of it was kept.",
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
UPLOAD_TIMEOUT = ProblemKind(
    "upload-timeout",
    408,
    "The body arrives too slowly",
    "Send it again, whole; the limit between two pieces of a body is "
    "DRIFTSCOPE_UPLOAD_IDLE_TIMEOUT_SECONDS, that of the whole body "
    "DRIFTSCOPE_UPLOAD_TOTAL_TIMEOUT_SECONDS, and its least rate is "
    "DRIFTSCOPE_UPLOAD_MIN_BYTES_PER_SECOND. Nothing of it was kept.",
)
HEADERS_TIMEOUT = ProblemKind(
    "headers-timeout",
    408,
    "The request did not begin in time",
    "Its first line and headers have to arrive within DRIFTSCOPE_HEADER_TIMEOUT_SECONDS of the "
    "connection, or of the first byte where a connection is used again.",
)
HEADERS_TOO_LARGE = ProblemKind(
    "headers-too-large",
    431,
    "The address and headers are too large",
    "No request of this service needs more than a few hundred bytes of them. Cookies of other "
    "programs under the same host name are sent here as well: remove them, or use another name.",
)
TOO_MANY_CONNECTIONS = ProblemKind(
    "too-many-connections",
    503,
    "Too many connections are open",
    "All of them are being answered. Try again after Retry-After seconds, use one connection for "
    "several requests, or raise DRIFTSCOPE_MAX_CONNECTIONS or, for one address, "
    "DRIFTSCOPE_MAX_CONNECTIONS_PER_ADDRESS.",
)
STEP_CONFLICT = ProblemKind(
    "step-conflict",
    409,
    "The step is there already, with other content",
    "A step or shard is accepted once per attempt of its run. Sending the same bytes again is no "
    "error. Training that was started again opens an attempt of its own; two processes that push "
    "to one run give their shards, or use a run each. The page of the run counts what was refused.",
)
SHARDS_MISSING = ProblemKind(
    "shards-missing",
    409,
    "Not all shards of the step have arrived",
    "`missing` names them. Send them and complete the step again.",
)
JOB_FINISHED = ProblemKind(
    "job-finished",
    409,
    "The job has already finished",
    "A job that succeeded or failed cannot be cancelled. (Cancelling a cancelled job again is no "
    "error.)",
)
JOB_UNFINISHED = ProblemKind(
    "job-unfinished",
    409,
    "The job has not ended",
    "A job that waits or runs cannot be deleted. Cancel it, and delete it when it has ended.",
)
IN_USE = ProblemKind(
    "in-use",
    409,
    "Something else rests on it",
    "`detail` says what, `remedy` what to do first. Nothing was deleted.",
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
    "Send fewer or shorter prompts, or a step in more shards; the limits are "
    "DRIFTSCOPE_MAX_BODY_BYTES and, for the tokens of a step, DRIFTSCOPE_MAX_UPLOAD_BYTES.",
)
UNSUPPORTED_MEDIA_TYPE = ProblemKind(
    "unsupported-media-type",
    415,
    "The body is of a kind that is not read here",
    "`detail` lists the accepted values of Content-Type or Content-Encoding.",
)
QUEUE_FULL = ProblemKind(
    "queue-full",
    429,
    "Too many jobs are waiting",
    "Wait for Retry-After seconds, or cancel jobs; the limit is DRIFTSCOPE_MAX_QUEUED_JOBS.",
)
RATE_LIMITED = ProblemKind(
    "rate-limited",
    429,
    "Too many requests",
    "Wait for Retry-After seconds. The limits of a key are those that it was made with, or "
    "DRIFTSCOPE_REQUESTS_PER_MINUTE_PER_KEY and DRIFTSCOPE_CONCURRENT_REQUESTS_PER_KEY; the header "
    "RateLimit says how much of them is left.",
)
TOO_MANY_WRONG_KEYS = ProblemKind(
    "too-many-wrong-keys",
    429,
    "Too many wrong API keys came from this address",
    "Correct the key. A right one is accepted at once; the next wrong one from this address is "
    "looked at after Retry-After seconds.",
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
    "The database or the storage of files does not answer",
    "It is locked, or its disk, server or bucket is gone. Try again after Retry-After seconds; the "
    "log has the cause.",
)
TOO_MANY_UPLOADS = ProblemKind(
    "too-many-uploads",
    503,
    "Too many uploads are under way",
    "Try again after Retry-After seconds; the limit is DRIFTSCOPE_MAX_CONCURRENT_UPLOADS. Nothing "
    "was kept.",
)
ANALYSIS_FAILED = ProblemKind(
    "analysis-failed",
    503,
    "The step could not be analysed",
    "The process that analysed it ended, most often because memory ran out, or the Ray cluster "
    "that analyses large steps failed: `detail` says which. Try again after Retry-After seconds, "
    "or push the step in smaller shards. Nothing was kept but shards that had been received.",
)
NOT_READY = ProblemKind(
    "not-ready",
    503,
    "The service is not ready",
    "`checks` names what is wrong: database, migrations, data folder, free disk space or the job "
    "executor.",
)
STORAGE_FULL = ProblemKind(
    "storage-full",
    507,
    "There is no room left",
    "The disk of the data folder or of the database is full, or the upload would let it fall below "
    "DRIFTSCOPE_MIN_FREE_DISK_BYTES. Make room, or lower DRIFTSCOPE_TOKEN_BUDGET_BYTES. Nothing "
    "was kept.",
)

KINDS = (
    INVALID_REQUEST,
    MALFORMED_REQUEST,
    KEY_IN_ADDRESS,
    WRONG_HOST,
    MALFORMED_STEP,
    UNAUTHENTICATED,
    SCOPE_MISSING,
    RUN_OUT_OF_REACH,
    OTHER_ORIGIN,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    UPLOAD_TIMEOUT,
    HEADERS_TIMEOUT,
    HEADERS_TOO_LARGE,
    TOO_MANY_CONNECTIONS,
    STEP_CONFLICT,
    SHARDS_MISSING,
    JOB_FINISHED,
    JOB_UNFINISHED,
    IN_USE,
    REPORT_GONE,
    CONTENT_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    QUEUE_FULL,
    RATE_LIMITED,
    TOO_MANY_WRONG_KEYS,
    INTERNAL_ERROR,
    STORAGE_UNAVAILABLE,
    TOO_MANY_UPLOADS,
    ANALYSIS_FAILED,
    NOT_READY,
    STORAGE_FULL,
)
