import pytest

from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.paired.report import semantic_notes
from driftscope_probes.paired.request import PairedRequest


def notes(**fields: object) -> str:
    names = EngineSettings.model_fields.keys()
    engine = {name: value for name, value in fields.items() if name in names}
    sampling = {name: value for name, value in fields.items() if name not in names}
    return " ".join(
        semantic_notes(
            PairedRequest(
                model="m",
                prompts=32,
                engine=EngineSettings(**engine),
                sampling=SamplingSettings(**sampling),
            )
        )
    )


def test_nothing_to_say_when_both_sides_mean_the_same() -> None:
    assert notes() == ""
    assert notes(logprobs_mode="processed_logprobs", temperature=0.7) == ""


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"logprobs_mode": "processed_logprobs", "top_p": 0.9}, "renormalised"),
        ({"logprobs_mode": "processed_logprobs", "top_k": 20}, "renormalised"),
        ({"temperature": 0.7}, "unscaled model"),
        ({"temperature": 0.0}, "Greedy"),
        ({"kind": "vllm-server"}, "as declared"),
    ],
)
def test_a_setting_that_changes_the_meaning_is_said(fields: dict[str, object], told: str) -> None:
    assert told in notes(**fields)


def test_few_sequences_make_narrow_intervals() -> None:
    few = PairedRequest(model="m", prompts=8)
    assert "resampling 8 sequences" in " ".join(semantic_notes(few))
    assert semantic_notes(PairedRequest(model="m", prompts=8, resamples=0)) == []
