"""A record that exists is valid; what is refused is named with its place."""

import pytest

from amopo_jax.data.records import Message, Record, Response, score_in_range
from amopo_jax.types import InputError

QUESTION = Message("user", "Why?")
TWO = (Response("Because.", {"helpfulness": 2.0}), Response("No idea.", {"helpfulness": 0.0}))


def refusal(prompt=(QUESTION,), responses=TWO, chosen=None) -> str:
  with pytest.raises(InputError) as caught:
    Record(prompt, responses, chosen, "set.jsonl:7")
  return str(caught.value)


@pytest.mark.parametrize(
  "prompt",
  [
    (QUESTION,),
    (Message("system", ""), QUESTION),
    (Message("assistant", "Hello."), QUESTION),
    (Message("system", "Be kind."), QUESTION, Message("assistant", "So."), QUESTION),
  ],
)
def test_a_dialogue_that_ends_with_the_user_is_a_prompt(prompt):
  assert Record(prompt, TWO, 1, "set.jsonl:7").prompt == prompt


@pytest.mark.parametrize(
  ("wrong", "reason"),
  [
    ({"prompt": ()}, "no prompt"),
    ({"prompt": (Message("human", "Why?"),)}, "unknown role 'human'"),
    ({"prompt": (QUESTION, Message("system", "Late."), QUESTION)}, "message 1 has the role 'system'"),
    ({"prompt": (QUESTION, Message("assistant", "So."))}, "ends with role 'assistant'"),
    ({"prompt": (Message("user", " \n"),)}, "last message is empty"),
    ({"responses": TWO[:1]}, "1 response(s); a preference needs at least two"),
    ({"responses": ()}, "0 response(s)"),
    ({"responses": (TWO[0], Response(" \n", {}))}, "response 1 is empty"),
    ({"responses": (TWO[0], Response("x", {"tone": float("nan")}))}, "'tone' of response 1 is nan"),
    ({"responses": (Response("x", {"tone": float("-inf")}), TWO[0])}, "'tone' of response 0 is -inf"),
    ({"chosen": 2}, "chosen is 2; the responses are numbered 0 to 1"),
    ({"chosen": -1}, "chosen is -1"),
  ],
)
def test_a_bad_record_is_refused_in_one_line_with_its_place(wrong, reason):
  message = refusal(**wrong)
  assert message.startswith("set.jsonl:7: ")
  assert reason in message
  assert "\n" not in message


@pytest.mark.parametrize("score", [0.0, 2.5, 4.0])
def test_scores_inside_the_range_ends_included_are_given_back(score):
  assert score_in_range(Response("x", {"tone": score}), "tone", 0, 4, "set.jsonl:7") == score


@pytest.mark.parametrize("score", [-0.5, 4.01])
def test_a_score_outside_the_declared_range_is_refused(score):
  with pytest.raises(InputError, match=rf"set.jsonl:7: 'tone' is {score:g}, outside the declared range 0 to 4"):
    score_in_range(Response("x", {"tone": score}), "tone", 0, 4, "set.jsonl:7")


def test_a_missing_score_is_refused_and_the_given_ones_are_listed():
  with pytest.raises(InputError, match=r"set.jsonl:7: no score for 'tone' \(scored: humour, length\)"):
    score_in_range(Response("x", {"humour": 1.0, "length": 2.0}), "tone", 0, 4, "set.jsonl:7")


@pytest.mark.parametrize(
  "wanted, reason",
  [({"tone": -1}, "'wanted' gives 'tone' the weight -1"), ({"tone": 0}, "every dimension the weight 0; leave it out")],
)
def test_a_wish_that_makes_no_sense_is_refused(wanted, reason):
  with pytest.raises(InputError, match=f"set.jsonl:7: .*{reason}"):
    Record((Message("user", "Soup?"),), TWO, 1, "set.jsonl:7", wanted)
