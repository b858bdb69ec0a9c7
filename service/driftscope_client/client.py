"""DriftscopeClient: a trainer's pushes, in the background, without ever disturbing the training.

In: the tensors of a step. Out: nothing (push), or the service's analysis (push_now, on_result).
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from driftscope_client.answer import LatestDiagnosis, StepDiagnosis
from driftscope_client.attempt import PushedAttempt, Start
from driftscope_client.background_queue import BackgroundQueue
from driftscope_client.errors import RUN_VARIABLE, DriftscopeError, checked_run
from driftscope_client.layouts import step_tensors
from driftscope_client.outcomes import (
    AFTER_CLOSE,
    LEFT_AT_CLOSE,
    NO_ROOM,
    Outcomes,
    PushCounts,
    PushTicket,
    outcome_of,
)
from driftscope_client.run_log import RunLog
from driftscope_client.snapshot import Copy, size_in_memory, snapshot
from driftscope_client.step_body import CONTENT_TYPE, step_body
from driftscope_client.transport import NO_ANSWER_AT_CLOSE, RequestBody, RetryPolicy, Transport

DEFAULT_URL = "http://127.0.0.1:8321"
URL_VARIABLE, KEY_VARIABLE = "DRIFTSCOPE_URL", "DRIFTSCOPE_API_KEY"
#: The answer includes the analysis, seconds for the largest step; longer means the service hangs.
TIMEOUT_S = 60.0
#: Pushing a step is faster than training it: a longer queue means the service is down.
QUEUE_SIZE = 8
#: Eight steps of 4.2M tokens with ids, mask and advantages; a small part of a trainer's host.
QUEUE_BYTES = 2**30
#: How long a trainer that is done waits for its last steps.
CLOSE_TIMEOUT_S = 30.0
#: A broken connection or an ended wait is noticed within milliseconds once the client closes; what
#: is under way and takes longer than this is counted as not answered.
SETTLE_S = 0.2

#: The tensors that push(), push_now() and push_shard() take besides the two log-probabilities:
#: cu_seqlens, mask, token_ids, rollout_token_ids, advantages, entropy, position_ids, turn_ids,
#: behavior_version, rank, replica, cached_tokens, prompt_lengths, prompt_token_ids, environment,
#: routed_experts, trainer_routed_experts.
Tensor = Any  # numpy array, torch tensor, flat list, or a list with one of these per sequence

# Python 3.10 has no typing.Self.
_Client = TypeVar("_Client", bound="DriftscopeClient")


@dataclass(frozen=True, slots=True)
class _Push:
    step: int
    shard: tuple[int, int] | None  # (index, of how many)
    copies: Mapping[str, Copy]
    metadata: Mapping[str, object]
    ticket: PushTicket


@dataclass(frozen=True, slots=True)
class _End:
    """The end of the run, sent after its steps."""

    told: threading.Event


class DriftscopeClient(PushCounts):
    """Pushes steps of one run.

    push() and push_shard() copy what they are given, return, and never raise once the client
    exists. Every push ends in one counter: `pushed` (the service has it), `refused` (the service
    does not take it), `failed` (no answer, an error of the service, malformed tensors) or `dropped`
    (no room, or closed first); `pushes` is their sum once nothing waits. `last_error` is the latest
    error; each kind is logged at most once a minute, and close() logs how many steps did not
    arrive, and why. With strict=True they send at once and raise DriftscopeError.

    `on_result` is called on the background thread with each answer: the analysis of a step, whose
    `diagnosis` says first whether rounding explains it and, if not, what does; or the receipt of a
    shard. A verdict of `bug_like` or `not_comparable` is also logged, once per change.
    `on_metrics` is called there with the answer's numbers and words as one flat mapping, of the
    names in answer.NUMBERS and answer.WORDS: `DriftscopeClient(on_metrics=wandb.log)`; for others
    see driftscope_client.loggers. What either function raises is logged.

    A client survives fork(): the child starts with an empty queue, what the parent had queued stays
    with the parent.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        run: str | None = None,
        *,
        strict: bool = False,
        timeout_s: float = TIMEOUT_S,
        queue_size: int = QUEUE_SIZE,
        queue_bytes: int = QUEUE_BYTES,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
        on_result: Callable[[dict[str, Any]], None] | None = None,
        on_metrics: Callable[[dict[str, float | str]], object] | None = None,
        retry: RetryPolicy | None = None,
        attempt: str | None = None,
        resumed_from: int | None = None,
    ) -> None:
        """Without url, api_key and run: DRIFTSCOPE_URL (default http://127.0.0.1:8321),
        DRIFTSCOPE_API_KEY (default none) and DRIFTSCOPE_RUN.

        attempt: a name of this start of training, the same on all ranks (DRIFTSCOPE_ATTEMPT;
        default: what torchrun or srun say of the launch). resumed_from: the last step that still
        holds after a restart; default: that before the first one pushed. Without both, the service
        sees a restart by itself once a step arrives again with other content.

        queue_size, queue_bytes: what may wait, in steps and bytes, the one being sent included.
        Raises DriftscopeError for a missing or malformed run, URL or key.
        """
        self.url = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
        self.run = checked_run(run or os.environ.get(RUN_VARIABLE))
        self.strict = strict
        self.on_result, self.on_metrics = on_result, on_metrics
        self.last_error: Exception | None = None
        self._latest = LatestDiagnosis()
        self._api_key = (api_key or os.environ.get(KEY_VARIABLE) or "").strip() or None
        self.close_timeout_s = close_timeout_s
        self._timeout_s, self._retry = timeout_s, retry
        self._queue_size, self._queue_bytes = queue_size, queue_bytes
        self._closed = False
        self._start = Start.chosen(attempt, resumed_from)
        self._open()
        _clients.add(self)
        atexit.register(self.close)

    def push(
        self,
        step: int,
        *,
        rollout_logprobs: Tensor,
        trainer_logprobs: Tensor,
        metadata: Mapping[str, object] | None = None,
        **tensors: Tensor,
    ) -> None:
        """Push a whole step in the background.

        Tensors, each a numpy array, a torch tensor (any device), or lists: one entry per sequence;
        or flat [tokens] with cu_seqlens; or padded [sequences, longest] with a mask. Log-
        probabilities in nats, in float32, float16 or bfloat16 as they were computed (float64 and
        Python floats become float32). Metadata values become strings.
        """
        sides = {"rollout_logprobs": rollout_logprobs, "trainer_logprobs": trainer_logprobs}
        self._push(step, None, sides | tensors, metadata)

    def push_shard(
        self,
        step: int,
        shard: int,
        shards: int,
        *,
        rollout_logprobs: Tensor,
        trainer_logprobs: Tensor,
        metadata: Mapping[str, object] | None = None,
        **tensors: Tensor,
    ) -> None:
        """push(), for the share of data-parallel rank `shard` of `shards`.

        Every rank calls it, in any order. Whichever arrives last has the step analysed, and gets
        the analysis; the others get a receipt. Without a tensor `rank`, it is the shard's number.
        """
        sides = {"rollout_logprobs": rollout_logprobs, "trainer_logprobs": trainer_logprobs}
        self._push(step, (shard, shards), sides | tensors, metadata)

    def push_now(
        self,
        step: int,
        *,
        rollout_logprobs: Tensor,
        trainer_logprobs: Tensor,
        metadata: Mapping[str, object] | None = None,
        **tensors: Tensor,
    ) -> dict[str, Any]:
        """push(), but wait for the service's analysis and return it. Raises DriftscopeError."""
        sides = {"rollout_logprobs": rollout_logprobs, "trainer_logprobs": trainer_logprobs}
        with self._counted() as ticket:
            answer = self._send(self._copied(step, None, sides | tensors, metadata, ticket))
        self._latest.heard(self.run, answer)
        return answer

    def complete(self, step: int) -> dict[str, Any]:
        """Have the shards of a step merged and analysed, and wait. push_shard() does it by itself.

        Raises DriftscopeError, with status 409 while shards are missing.
        """
        path = f"/v1/runs/{self.run}/steps/{step}/complete"
        return self._transport.post(path, self._attempt.params)

    def begin_attempt(self, attempt: str | None = None, resumed_from: int | None = None) -> None:
        """What is pushed from now on belongs to another start of training; as in the constructor.
        Raises DriftscopeError for an id or a step that is not accepted."""
        self._start = Start.chosen(attempt, resumed_from)
        self._attempt = PushedAttempt(self._start)

    @property
    def page_url(self) -> str:
        """Where a browser shows the run."""
        return f"{self._transport.url}/runs/{self.run}"

    @property
    def last_diagnosis(self) -> StepDiagnosis | None:
        """Of the highest step that was answered, as long as there is one."""
        return self._latest.value

    def metrics(self) -> dict[str, float]:
        """For a trainer's own log: the numbers of the latest answer, which may be some steps old
        (`driftscope/step`). Floats only, which every log takes; words go to on_metrics."""
        latest = self._latest.value
        return {} if latest is None else latest.metrics()

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything was sent or given up; False if that took longer."""
        return self._queue.flush(timeout_s)

    def finish(self, timeout_s: float | None = None) -> bool:
        """Send what waits and tell the service that the run has ended normally, so that its silence
        raises no alert. Takes at most close_timeout_s; returns whether the service knows.

        Each of several ranks may call it; the last call counts. A later push reopens the run.
        """
        end = _End(threading.Event())
        if self.strict:
            self._tell(end)
            return True
        deadline = time.monotonic() + (self.close_timeout_s if timeout_s is None else timeout_s)
        # Into an empty queue only: what waits when the client closes are steps.
        if self.flush(max(0.0, deadline - time.monotonic())) and self._queue.put(end, 0):
            self.flush(max(0.0, deadline - time.monotonic()))
        if not end.told.is_set():
            self._log.end_untold(self._transport)
        self._tell_losses()
        return end.told.is_set()

    def close(self, timeout_s: float | None = None) -> None:
        """Send what waits, for at most close_timeout_s, and end the thread. Also done at exit.

        This does not tell the service that the run has ended: see finish().
        """
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        deadline = time.monotonic() + (self.close_timeout_s if timeout_s is None else timeout_s)
        self._queue.flush(max(0.0, deadline - time.monotonic()))
        for item in self._queue.close():
            if isinstance(item, _Push):
                self._outcomes.end(item.ticket, "dropped", LEFT_AT_CLOSE)
        self._transport.stop()
        self._queue.flush(SETTLE_S)
        for item in self._queue.under_way():
            if isinstance(item, _Push):
                self._outcomes.end(item.ticket, "failed", NO_ANSWER_AT_CLOSE)
        self._tell_losses()

    def __enter__(self: _Client) -> _Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def undisturbed(self, step: int) -> Iterator[None]:
        """For adapters: what fails within the block, before a push, counts as a failed push of the
        step and is logged; with strict=True it is raised."""
        try:
            yield
        except Exception as error:  # whatever it was, training continues: that is the promise
            if self.strict:
                raise
            self._fail(self._outcomes.begin(), step, error)

    def _open(self) -> None:
        self._outcomes = Outcomes()
        self._log = RunLog(self.run)
        self._attempt = PushedAttempt(self._start)
        self._transport = Transport(
            self.url,
            self._api_key,
            timeout_s=self._timeout_s,
            retry=self._retry,
            on_retry=self._log.trouble,
        )
        self._queue = BackgroundQueue[_Push | _End](
            self._work, max_items=self._queue_size, max_bytes=self._queue_bytes
        )

    @contextmanager
    def _counted(self) -> Iterator[PushTicket]:
        """A push that is sent at once: what is raised within is counted and raised on."""
        ticket = self._outcomes.begin()
        try:
            yield ticket
        except Exception as error:
            self._outcomes.end(ticket, *outcome_of(error))
            raise

    def _push(
        self,
        step: int,
        shard: tuple[int, int] | None,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, object] | None,
    ) -> None:
        if self.strict:
            with self._counted() as ticket:
                push = self._copied(step, shard, tensors, metadata, ticket)
                answer = self._send(push)
            return self._report(push.step, answer)
        ticket = self._outcomes.begin()
        if not self._queue.has_room(0):  # before the cost of copying
            return self._drop(ticket, step)
        try:
            push = self._copied(step, shard, tensors, metadata, ticket)
            size = size_in_memory(push.copies)
        except Exception as error:  # whatever it was, training continues: that is the promise
            return self._fail(ticket, step, error)
        if not self._queue.put(push, size):
            self._drop(ticket, step)

    def _copied(
        self,
        step: int,
        shard: tuple[int, int] | None,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, object] | None,
        ticket: PushTicket,
    ) -> _Push:
        push = _Push(step, shard, snapshot(tensors), dict(metadata or {}), ticket)
        self._log.unknown_dtypes(push.metadata)
        return push

    def _work(self, push: _Push | _End) -> None:
        """On the background thread, where an exception would go unseen."""
        if isinstance(push, _End):
            return self._try_to_tell(push)
        try:
            answer = self._send(push)
        except Exception as error:
            return self._fail(push.ticket, push.step, error)
        self._report(push.step, answer)

    def _send(self, push: _Push) -> dict[str, Any]:
        shard, shards = push.shard or (0, 0)
        rank = shard if push.shard else None
        body = step_body(step_tensors(push.copies, rank), push.metadata)
        request = RequestBody(body.chunks, body.size, CONTENT_TYPE)
        params = {"shard": shard, "shards": shards} if push.shard else {}
        path = f"/v1/runs/{self.run}/steps/{push.step}/logprobs"
        answer = self._post(path, params, request, push)
        if answer.get("missing") == []:  # ours was the last shard; two may see that and both ask
            answer = self.complete(push.step)
        self._outcomes.end(push.ticket, "pushed")
        return answer

    def _post(
        self, path: str, params: Mapping[str, str | int], request: RequestBody, push: _Push
    ) -> dict[str, Any]:
        """Within the attempt of this client, which the first push opens."""
        link, of_shards = self._transport, push.shard is not None and push.shard[1] > 1

        def send() -> dict[str, Any]:
            of = self._attempt.opened(link, self.run, push.step, of_shards=of_shards)
            return link.post(path, {**params, **of}, request)

        try:
            return send()
        except DriftscopeError as error:
            if not self._attempt.to_be_sent_anew(error):
                raise
        return send()

    def _try_to_tell(self, end: _End) -> None:
        try:
            self._tell(end)
        except DriftscopeError as error:
            self.last_error = _without_frames(error)

    def _tell(self, end: _End) -> None:
        self._transport.put(f"/v1/runs/{self.run}", {"state": "finished"})
        end.told.set()

    def _report(self, step: int, answer: dict[str, Any]) -> None:
        found = self._latest.heard(self.run, answer)
        if self.on_result is not None:
            self._call("on_result", self.on_result, step, answer)
        if self.on_metrics is not None and found is not None:
            self._call("on_metrics", self.on_metrics, step, found.logged())

    def _call(self, name: str, function: Callable[[Any], object], step: int, told: object) -> None:
        try:
            function(told)
        except Exception as error:  # the step has arrived: it is the caller's function that failed
            if self.strict:
                raise
            self.last_error = _without_frames(error)
            self._log.callback_failed(name, step, error)

    def _fail(self, ticket: PushTicket, step: int, error: Exception) -> None:
        self.last_error = _without_frames(error)
        outcome, reason = outcome_of(error)
        if self._outcomes.end(ticket, outcome, reason):
            self._log.lost(step, outcome, reason, error)

    def _drop(self, ticket: PushTicket, step: int) -> None:
        self._outcomes.end(ticket, "dropped", AFTER_CLOSE if self._closed else NO_ROOM)
        if self._closed:
            return self._log.after_close(step)
        queue = f"{self._queue_size} steps or {self._queue_bytes:,} bytes"
        self._log.no_room(step, queue, self._transport, self._queue.backlog_since)

    def _tell_losses(self) -> None:
        if not self.strict:  # each was raised
            self._log.total(self._outcomes, self.last_error)

    def _after_fork(self) -> None:
        """In the child: the thread does not exist, locks may stay held, connections are shared."""
        if not self._closed:
            self._open()


def _without_frames(error: Exception) -> Exception:
    """The stored exception must not keep the step's tensors alive: its frames hold them."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


_clients: weakref.WeakSet[DriftscopeClient] = weakref.WeakSet()


def _renew_in_child() -> None:
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_renew_in_child)
