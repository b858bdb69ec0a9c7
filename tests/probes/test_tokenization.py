"""Against the tokenizer itself, with and without a chat template."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from driftscope_probes.errors import RequestError
from driftscope_probes.prompts import Message, PromptBatch
from driftscope_probes.tokenization import check_context, tokenize

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant]"


@pytest.fixture
def templated(tiny_llama: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "templated"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture
def plain(tiny_llama: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "plain"))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = folder / "tokenizer_config.json"
    fields = json.loads(config.read_text())
    fields.pop("chat_template", None)
    config.write_text(json.dumps(fields))
    return folder


def encoded(folder: Path, text: str) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_the_template_is_used_where_there_is_one(templated: Path) -> None:
    wanted = encoded(templated, "[user] Hello [assistant]")
    assert tokenize(templated, ["Hello"], chat_template=None).ids(0) == wanted
    messages = [Message(role="user", content="Hello")]
    assert tokenize(templated, [messages], chat_template=None).ids(0) == wanted


def test_plain_text_stays_plain(templated: Path, plain: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(plain, local_files_only=True)
    wanted = list(tokenizer("Hello")["input_ids"])
    assert tokenize(plain, ["Hello"], chat_template=None).ids(0) == wanted
    assert tokenize(templated, ["Hello"], chat_template=False).ids(0) == wanted


def test_messages_need_a_template(plain: Path) -> None:
    messages = [Message(role="user", content="Hello")]
    with pytest.raises(RequestError, match="no chat template"):
        tokenize(plain, [messages], chat_template=None)
    with pytest.raises(RequestError, match="no chat template"):
        tokenize(plain, ["Hello"], chat_template=True)


def test_a_prompt_and_its_response_must_fit_the_context() -> None:
    batch = PromptBatch.from_lists([[1], [1] * 90])
    check_context(batch, 10, 100)
    with pytest.raises(RequestError, match="prompt 1 has 90 tokens") as caught:
        check_context(batch, 11, 100)
    assert "at most 10" in caught.value.remedy
    with pytest.raises(RequestError) as caught:
        check_context(batch, 1, 90)
    assert "max-tokens" not in caught.value.remedy


def test_a_process_without_torch_stays_without_it(templated: Path) -> None:
    """The tokens are those that a process with torch encodes."""
    program = (
        "import json, sys; from pathlib import Path\n"
        "from driftscope_probes.tokenization import tokenize\n"
        "batch = tokenize(Path(sys.argv[1]), ['hello', 'you there'], chat_template=True)\n"
        "print(json.dumps([batch.token_ids.tolist(), 'torch' in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(templated)], capture_output=True, text=True, check=True
    )
    expected = tokenize(templated, ["hello", "you there"], chat_template=True)
    assert json.loads(done.stdout) == [expected.token_ids.tolist(), False]
