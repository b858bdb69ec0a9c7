from pathlib import Path

import pytest

from driftscope_probes.errors import ModelError
from driftscope_probes.models import catalogue
from driftscope_probes.models.fetch import BUILDS, fetch


def test_every_entry_has_a_build() -> None:
    assert {model.name for model in catalogue.CATALOGUE} == set(BUILDS)


def test_names_and_recipes_are_unique() -> None:
    models = catalogue.CATALOGUE
    assert len({model.name for model in models}) == len(models)
    assert len({model.recipe for model in models}) == len(models)
    assert len({(model.family, model.master_dtype) for model in models}) == len(models)


def test_find() -> None:
    bf16 = catalogue.find("smollm2-135m")
    assert bf16 is not None and bf16.master_dtype == "bf16"
    assert catalogue.find("smollm2-135m", "bf16") == bf16
    fp32 = catalogue.find("smollm2-135m", "fp32")
    assert fp32 is not None and fp32.name == "smollm2-135m-fp32"
    assert catalogue.find("smollm2-135m-fp32") == fp32
    assert catalogue.find("SmolLM2") is None


def test_a_dtype_that_a_model_does_not_come_in() -> None:
    with pytest.raises(ModelError, match="fp32 master weights") as caught:
        catalogue.find("tiny-random-llama", "fp32")
    assert "bf16" in caught.value.remedy


def test_unknown_name_lists_the_known_and_guesses() -> None:
    error = catalogue.unknown("smollm-135m")
    assert "Did you mean smollm2-135m?" in error.remedy
    assert all(model.name in error.remedy for model in catalogue.CATALOGUE)
    assert "Did you mean" not in catalogue.unknown("xyz").remedy


def test_row_says_whether_it_is_cached(own_home: Path) -> None:
    model = catalogue.find("tiny-random-llama")
    assert model is not None
    row = model.to_dict()
    assert row["cached"] is False
    assert row["path"] == str(own_home / "models" / "tiny-random-llama")
    assert {"name", "description", "size_bytes", "licence", "source"} <= set(row)
    fetch("tiny-random-llama")
    assert model.to_dict()["cached"] is True


@pytest.mark.parametrize("name", ["tiny-random-llama", "tiny-random-moe"])
def test_stated_size_is_about_right(own_home: Path, name: str) -> None:
    model = catalogue.find(name)
    assert model is not None
    fetch(name)
    size = sum(path.stat().st_size for path in model.folder.iterdir())
    assert size == pytest.approx(model.size_bytes, rel=0.1)
