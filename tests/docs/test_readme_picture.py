"""The picture in the README is what the code draws today."""

from __future__ import annotations

from building import readme_picture


def test_it_is_current():
    drawn = readme_picture.content(readme_picture.gru_step())
    assert readme_picture.content(readme_picture.PICTURE.read_text("utf-8")) == drawn, (
        "run python docs/building/readme_picture.py"
    )


def test_a_picture_of_something_else_is_noticed():
    svg = readme_picture.PICTURE.read_text("utf-8")
    assert readme_picture.content(svg.replace("tanh", "sin")) != readme_picture.content(svg)
