"""Questions and answers over files: in order, whole, and never waited for in vain."""

import threading
from pathlib import Path

import pytest

from driftscope_probes.children import Mailbox


def test_answers_come_to_their_questions(tmp_path: Path) -> None:
    def serve() -> None:
        Mailbox(tmp_path).serve(lambda question: {"twice": 2 * question["number"]})

    threading.Thread(target=serve, daemon=True).start()
    mailbox = Mailbox(tmp_path)
    answers = [mailbox.ask({"number": number}, lambda: True)["twice"] for number in range(20)]
    assert answers == [2 * number for number in range(20)]
    assert list(tmp_path.iterdir()) == []


def test_a_dead_other_side_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="without an answer"):
        Mailbox(tmp_path).ask({"number": 1}, lambda: False)


def test_the_last_answer_of_a_dying_side_counts(tmp_path: Path) -> None:
    def dies_after_answering() -> bool:
        (tmp_path / "answer-1.json").write_text('{"last": true}')
        return False

    assert Mailbox(tmp_path).ask({}, dies_after_answering) == {"last": True}
