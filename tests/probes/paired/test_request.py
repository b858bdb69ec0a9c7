import pytest
from pydantic import ValidationError

from driftscope_probes.dtypes import BASE_MODES, HEAD_SUFFIX, parse_mode
from driftscope_probes.paired.request import MAX_PROMPTS, PairedRequest


def test_the_default_is_the_grid_of_nine() -> None:
    request = PairedRequest(model="m")
    assert request.engine_dtypes == request.trainer_dtypes == ["bf16", "fp16", "fp32"]
    assert PairedRequest(**request.model_dump()) == request


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"prompts": []}, "0 prompts given"),
        ({"prompts": MAX_PROMPTS + 1}, f"1 to {MAX_PROMPTS} are accepted"),
        ({"prompts": ["good", " \n"]}, "prompt 1 is empty"),
        ({"prompts": [[]]}, "prompt 0 is empty"),
        ({"engine_dtypes": ["bf17"]}, "bf16"),
        ({"engine_dtypes": []}, "at least 1"),
        ({"engine_dtypes": ["bf16", "bf16"]}, "twice"),
        ({"trainer_dtypes": ["int8"]}, "unknown trainer mode 'int8'"),
        ({"sampling": {"temperature": -1}}, "greater than or equal to 0"),
        ({"engine": {"logprobs_mode": "raw_logits"}}, "raw_logprobs"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        PairedRequest(**{"model": "m", **fields})


@pytest.mark.parametrize("base", BASE_MODES)
def test_every_mode_is_parsed_with_and_without_its_head(base: str) -> None:
    plain, headed = parse_mode(base), parse_mode(base + HEAD_SUFFIX)
    assert (plain.fp32_head, headed.fp32_head) == (False, True)
    assert (plain.weights, plain.autocast) == (headed.weights, headed.autocast)
    assert plain.compute == base.removeprefix("autocast-")
