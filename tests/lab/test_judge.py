"""A judge is a real command."""

import json
import sys

import pytest

from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.judge import check_judge, judge_lines, read_judged
from amopo_jax.types import InputError, RunFailure

JUDGE = """
import json, sys
responses, scores = sys.argv[-2:]
with open(scores, "w") as out:
  for line in map(json.loads, open(responses)):
    {body}
"""
BY_LENGTH = f'print(json.dumps({{"scores": dict.fromkeys({DIMENSIONS}, min(4, len(line["response"])))}}), file=out)'


@pytest.fixture
def responses(tmp_path):
  path = tmp_path / "greedy.jsonl"
  lines = [{"record": n, "context": "overall", "sample": 0, "response": "x" * n} for n in (2, 9)]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return path


@pytest.fixture
def judge(tmp_path):
  """A command whose program does something with each line."""

  def make(body, *arguments):
    (tmp_path / "the judge.py").write_text(JUDGE.replace("{body}", body))
    return f'{sys.executable} "{tmp_path}/the judge.py" {" ".join(arguments)}'

  return make


def test_scores_come_to_their_responses_and_are_made_once(responses, judge):
  command = judge(BY_LENGTH, "--strict")
  judge_lines(responses, command)
  judge_lines(responses, "no such command")
  found = read_judged(responses, command)
  assert [line["correctness"] for line in found] == [2, 4]
  assert [line["response"] for line in found] == ["xx", "x" * 9]


@pytest.mark.parametrize(
  ("body", "told"),
  [
    ("raise SystemExit('no key')", r"ended with status 1 on .*greedy.jsonl \(no key\)"),
    ("pass", "wrote 0 lines for 2 responses"),
    ("print('{}', file=out)", r"greedy.scores.jsonl.new:1: no scores in helpfulness.*KeyError"),
    (BY_LENGTH.replace("4", "7"), "helpfulness 7 is not from 0 to 4"),
    ("import os; os.path.exists(scores) and os.remove(scores)", "wrote no .*greedy.scores.jsonl.new"),
  ],
)
def test_a_judge_that_does_something_else_is_told(responses, judge, body, told):
  with pytest.raises(RunFailure, match=told):
    judge_lines(responses, judge(body))
  assert not responses.with_suffix(".scores.jsonl").exists()


def test_a_command_that_is_none(responses):
  with pytest.raises(RunFailure, match="--judge=nowhere: cannot be run"):
    judge_lines(responses, "nowhere")
  for judge, told in (("", "is empty"), ("a 'b", "No closing quotation")):
    with pytest.raises(InputError, match=told):
      check_judge(judge)
