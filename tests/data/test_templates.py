"""Instruction templates: filling in and refusing."""

import pytest

from amopo_jax.data.templates import TEMPLATES, check_template, dimensions_told, fill
from amopo_jax.types import InputError


@pytest.mark.parametrize(
  ("score", "low", "high", "level"),
  [(0, 0, 4, "1"), (4, 0, 4, "5"), (3, 0, 4, "4"), (1, 1, 5, "1"), (2.5, 0, 5, "3"), (2 / 3, 0, 1, "3.7")],
)
def test_the_declared_range_is_mapped_onto_the_rubric(score, low, high, level):
  assert fill("{score}", "tone", {"tone": score}, low, high) == level


def test_every_placeholder_is_filled_in():
  text = fill(
    "{dimension} {score} {raw_score} {low} {high} {{x}}", "instruction_following", {"instruction_following": 2.5}, 0, 5
  )
  assert text == "instruction following 3 2.5 0 5 {x}"


def test_scores_of_several_dimensions_may_be_told():
  text = "{score} for tone {score:tone} , truth {score:truth} of {high} , raw {raw_score:truth}"
  assert fill(text, "tone", {"tone": 1, "truth": 2}, 0, 4) == "2 for tone 2 , truth 3 of 4 , raw 2"
  assert dimensions_told(text, "c") == ("tone", "truth")
  assert dimensions_told("rubric", "c") == ()


def test_the_rubric_names_its_dimension_its_five_levels_and_the_score():
  text = fill(TEMPLATES["rubric"], "tone", {"tone": 3}, 0, 4)
  assert all(f"\n{level}: " in text for level in range(1, 6))
  assert text.count("tone") >= 5
  assert text.endswith("rated 4.")
  assert "{" not in text


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_named_templates_are_accepted_by_name(template):
  assert set(check_template(template, "contexts: 'x'")) <= {"dimension", "score"}


@pytest.mark.parametrize(
  ("template", "reason"),
  [
    ("rubrik", "unknown template 'rubrik'"),
    ("about {aspect}", "unknown placeholder '{aspect}'"),
    ("about {}", "unknown placeholder '{}'"),
    ("about {score:.2f}", "unknown placeholder '{score:.2f}'"),
    ("about {score!r}", "unknown placeholder '{score!r}'"),
    ("about {dimension.upper}", "unknown placeholder '{dimension.upper}'"),
    ("about {dimension", "stray brace"),
    ("about dimension}", "stray brace"),
  ],
)
def test_a_template_that_cannot_be_filled_is_refused(template, reason):
  with pytest.raises(InputError) as caught:
    check_template(template, "contexts: 'tone'")
  assert str(caught.value).startswith("contexts: 'tone': ")
  assert reason in str(caught.value)
