"""Fields of raw rows: what counts as a text, a number, a message."""

import pytest

from amopo_jax.data import fields
from amopo_jax.data.records import Message
from amopo_jax.types import InputError


@pytest.mark.parametrize(("value", "score"), [(4, 4.0), (2.5, 2.5), ("4", 4.0), (" 3.5 ", 3.5), ("-1", -1.0)])
def test_numbers_and_numeric_strings_are_scores(value, score):
  assert fields.as_score(value, "tone", "f:1") == score


@pytest.mark.parametrize("value", ["N/A", "", "four", True, None, [4], {"Rating": 4}])
def test_anything_else_is_not_a_score(value):
  with pytest.raises(InputError, match=r"^f:1: .*tone"):
    fields.as_score(value, "tone", "f:1")


def test_a_prompt_is_a_text_or_messages():
  assert fields.as_prompt("Why?", "f:1") == (Message("user", "Why?"),)
  both = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]
  assert fields.as_prompt(both, "f:1") == (Message("system", "Be kind."), Message("user", "Why?"))


def test_a_missing_field_lists_the_ones_that_are_there():
  with pytest.raises(InputError, match=r"^f:1: no field 'prompt' \(found: instruction, input\)"):
    fields.field({"instruction": "x", "input": ""}, "prompt", "f:1")


@pytest.mark.parametrize(
  ("read", "value", "reason"),
  [
    (fields.as_prompt, 7, "the prompt is a number; it must be a list"),
    (fields.as_prompt, None, "the prompt is null"),
    (fields.as_prompt, ["Why?"], "a message is a text; it must be an object"),
    (fields.as_prompt, [{"content": "Why?"}], "no field 'role'"),
    (
      fields.as_prompt,
      [{"role": "user", "content": [{"type": "text"}]}],
      "the content of a message is a list",
    ),
    (fields.as_scores, [4], "'scores' is a list; it must be an object"),
    (fields.as_scores, {"tone": False}, "the score 'tone' is a truth value; it must be a number"),
    (fields.as_scores, {"tone": None}, "the score 'tone' is null; it must be a number"),
    (fields.as_scores, {"tone": 10**400}, "the score 'tone' is beyond the range of floats; correct it"),
    (fields.as_scores, {"tone": "\ud83d"}, r"'tone' is '\ud83d'; a score must be a number"),
    (fields.as_scores, {"\ude00": 1}, r"the name of a score has the lone surrogate '\ude00'"),
    (fields.as_prompt, "Why \ud83d", r"the prompt has the lone surrogate '\ud83d'"),
    (
      fields.as_prompt,
      [{"role": "user", "content": "\ud83d"}],
      "the content of a message has the lone surrogate",
    ),
  ],
)
def test_a_wrong_kind_is_named(read, value, reason):
  with pytest.raises(InputError) as caught:
    read(value, "f:1")
  assert str(caught.value).startswith("f:1: ")
  assert reason in str(caught.value)
