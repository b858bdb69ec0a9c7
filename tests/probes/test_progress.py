from driftscope_probes.progress import Progress, scaled


def test_a_part_moves_within_its_share_of_the_whole() -> None:
    seen: list[Progress] = []
    part = scaled(scaled(seen.append, 0.5, 1.0), 0.0, 0.5, "part: ")
    for fraction in (-1.0, 0.0, 0.5, 1.0, 9.0):
        part(Progress("step", fraction, "d"))
    assert [progress.fraction for progress in seen] == [0.5, 0.5, 0.625, 0.75, 0.75]
    assert {(progress.stage, progress.detail) for progress in seen} == {("part: step", "d")}


def test_a_part_that_ends_does_not_pass_the_start_of_the_next() -> None:
    seen: list[Progress] = []
    scaled(seen.append, 0.03, 0.45)(Progress("step", 1.0, ""))
    assert seen[0].fraction == 0.45
