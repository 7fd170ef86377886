"""The summary of three records written by hand."""

from amopo_jax.lab.summary import summarise

CLOSED = "reverse : ant cat . with commas . end with done ."
LIMITED = "capitals : ant cat dog . with dashes . at most 5 words ."


def record(question, chosen, rejected, place=0):
  dimensions = ("helpfulness", "correctness", "instruction_following")
  responses = [{"content": "x", "scores": dict(zip(dimensions, scores, strict=True))} for scores in (chosen, rejected)]
  return {
    "prompt": [{"role": "user", "content": question}],
    "responses": responses[::-1] if place else responses,
    "chosen": place,
  }


RECORDS = [
  record(CLOSED, (4, 3, 2), (1, 1, 1)),
  record(CLOSED, (4, 3, 2), (1, 3, 1), place=1),
  record(LIMITED, (0, 4, 4), (4, 0, 2), place=1),
]


def test_counts():
  summary = summarise(RECORDS)
  assert (summary["records"], summary["questions"], summary["conflicts"]) == (3, 2, 1)
  assert summary["kinds"] == {"clear": 1, "tied": 1, "inverted": 1}


def test_dimensions():
  dimensions = summarise(RECORDS)["dimensions"]
  assert dimensions["helpfulness"] == {
    "ordered": 2,
    "tied": 0,
    "inverted": 1,
    "mean_chosen": 2.667,
    "mean_rejected": 2.0,
  }
  assert dimensions["correctness"] == {
    "ordered": 2,
    "tied": 1,
    "inverted": 0,
    "mean_chosen": 3.333,
    "mean_rejected": 1.333,
  }


def test_kinds_that_do_not_occur_are_zero():
  assert summarise(RECORDS[:1])["kinds"] == {"clear": 1, "tied": 0, "inverted": 0}


def test_a_policy_ends_up_between_chance_and_optimum():
  summary = summarise(RECORDS)
  assert summary["optimum"] == {"helpfulness": 3.333, "correctness": 4.0, "instruction_following": 4.0}
  assert all(0 <= summary["chance"][dimension] < best for dimension, best in summary["optimum"].items())
  assert summary == summarise(RECORDS)
