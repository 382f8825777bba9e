"""What `dpscale pretrain` says; the training itself is tested in tests/unit/finetune."""

from __future__ import annotations

from jobs.pretrain import lines


def test_few_lines_and_always_the_last_step():
    said: list[str] = []
    log = lines(said.append)
    for done in range(101):
        log("image", done, 100, 0.5)
    assert [line.split("loss")[0].split() for line in said] == [["image", "0", "of", "100"], ["image", "100", "of", "100"]]
    assert "about 0:00 left" in said[-1]
