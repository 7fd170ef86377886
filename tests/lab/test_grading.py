import json
from functools import partial

import pytest

from amopo_jax.lab.graders import GRADERS, grade
from amopo_jax.lab.grading import best_scores, mean_scores, pair_accuracy, read_scores, table_rows, win_rate
from amopo_jax.lab.responders import optimum
from amopo_jax.lab.spec import DEFAULT_SPEC
from amopo_jax.lab.tasks import parse
from amopo_jax.lab.world import make_records
from amopo_jax.types import InputError


@pytest.fixture
def write(tmp_path):
  """Writes lines as `amopo generate` does, each response made of its task."""

  def run(name, respond, contexts=("a", "b")):
    path = tmp_path / name
    with path.open("w") as file:
      for record in make_records(DEFAULT_SPEC, 0, "heldout", 6):
        for context in contexts:
          response = respond(parse(record["prompt"][-1]["content"]))
          file.write(json.dumps({"prompt": record["prompt"], "context": context, "response": response}) + "\n")
    return path

  return run


def test_the_optimum_scores_as_the_optimum_and_nothing_as_nothing(write):
  path = write("best", optimum)
  assert read_scores(path)["a"] == pytest.approx(best_scores(path))
  nothing = read_scores(write("none", lambda task: "?"))
  assert nothing["b"]["correctness"] == 0
  assert nothing["b"]["helpfulness"] == 0


def test_scores_are_means_of_the_graders(write):
  path = write("some", lambda task: " , ".join(task.answer), contexts=("a",))
  tasks = [parse(json.loads(line)["prompt"][-1]["content"]) for line in path.read_text().splitlines()]
  expected = [grade(task, " , ".join(task.answer)) for task in tasks]
  found = read_scores(path)["a"]
  for dimension in expected[0]:
    assert found[dimension] == pytest.approx(sum(one[dimension] for one in expected) / len(expected))
  assert found["mean"] == pytest.approx(sum(found[dimension] for dimension in expected[0]) / 3)


def test_dimensions_on_demand_are_graded_with_the_others(write):
  dimensions = tuple(GRADERS)[:5]
  path = write("five", partial(optimum, dimensions=dimensions))
  found, best = read_scores(path, dimensions)["a"], best_scores(path, dimensions)
  assert list(found) == list(best) == [*dimensions, "mean"]
  assert found == pytest.approx(best)
  # What has no courtesies is as plain as can be; the optimum of three dimensions is full of them.
  assert best["plainness"] > read_scores(write("three", optimum), dimensions)["a"]["plainness"]
  assert table_rows([{"a": found}], best)[0] == ["asked for", *dimensions, "mean"]


def test_contexts_keep_their_order_and_files_are_joined_by_arrows():
  one = {"helpfulness": 1, "correctness": 2, "instruction_following": 3}
  two = {name: value + 1 for name, value in one.items()}
  before = mean_scores([{"context": "b", **one}, {"context": "a", **two}])
  after = mean_scores([{"context": "b", **two}, {"context": "c", **one}])
  assert list(before) == ["b", "a"]
  best = {"helpfulness": 3.0, "correctness": 4.0, "instruction_following": 3.5, "mean": 3.5}
  assert table_rows([before, after], best) == [
    ["asked for", "helpfulness", "correctness", "instruction_following", "mean"],
    ["b", "1.00 → 2.00", "2.00 → 3.00", "3.00 → 4.00", "2.00 → 3.00"],
    ["c", "– → 1.00", "– → 2.00", "– → 3.00", "– → 2.00"],
    ["optimum", "3.00", "4.00", "3.50", "3.50"],
  ]


@pytest.mark.parametrize(
  "text, message",
  [
    ("", "no responses; is the file empty"),
    ("{}\n", r"x\.jsonl:1: not a line of amopo generate"),
    ('{"prompt": [{"content": "how are you?"}], "response": "fine", "context": "a"}\n', r"x\.jsonl:1: "),
  ],
)
def test_other_files_are_refused(tmp_path, text, message):
  (tmp_path / "x.jsonl").write_text(text)
  with pytest.raises(InputError, match=message):
    read_scores(tmp_path / "x.jsonl")
  with pytest.raises(InputError, match="no such file"):
    read_scores(tmp_path / "y.jsonl")


def test_a_pair_is_right_where_the_chosen_response_is_the_likelier_one_per_token(tmp_path):
  ends = [(0, (2, 1)), (1, (0, 3)), (0, (1, 1)), (0, (0, 4))]  # the last two: a tie, an inversion
  records = [{"prompt": "a\u2028b", "responses": [{"scores": {"tone": s}} for s in scores]} for _, scores in ends]
  means = [(-1.0, -2.0), (-1.0, -2.0), (-1.0, -2.0), (-3.0, -2.0)]
  lines = [
    {"record": n, "context": context, "index": index, "length": 2 + index, "sum_logp": (2 + index) * mean}
    | {"response": "chosen" if index == ends[n][0] else "rejected"}
    for context in ("overall", "tone")
    for n, two in enumerate(means)
    for index, mean in reversed(list(enumerate(two)))
  ]
  texts = [json.dumps(record, ensure_ascii=False) for record in records]  # a separator of lines within a text is none
  (tmp_path / "records.jsonl").write_text("\n".join(texts))
  (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
  found = pair_accuracy(tmp_path / "pairs.jsonl", tmp_path / "records.jsonl", {"overall": "", "tone": "tone"})
  assert found == {"overall": 0.5, "tone": 0.5}  # 0 and 2 of four; 0 of the two that tone orders so
  assert (
    pair_accuracy(tmp_path / "pairs.jsonl", tmp_path / "records.jsonl", {"overall": "", "tone": "x"})["tone"] is None
  )


def test_in_a_dialogue_the_wanted_dimension_has_a_mean_of_its_own():
  lines = [
    {"context": "overall", "helpfulness": 1, "correctness": 2, "instruction_following": 3, "wanted": 2},
    {"context": "overall", "helpfulness": 3, "correctness": 0, "instruction_following": 3, "wanted": 3},
  ]
  found = mean_scores(lines)["overall"]
  assert found["wanted"] == 2.5
  assert found["mean"] == pytest.approx(2.0)
  without = {key: value for key, value in lines[1].items() if key != "wanted"}
  assert "wanted" not in mean_scores([lines[0], without])["overall"]


def test_a_draw_wins_against_the_other_s_draw_of_the_same_number():
  line = lambda record, sample, grade, context="overall": {
    "record": record,
    "context": context,
    "sample": sample,
    **dict.fromkeys(("helpfulness", "correctness", "instruction_following"), grade),
  }
  theirs = [line(0, 0, 1), line(0, 1, 3), line(1, 0, 2), line(0, 0, 0, "tone")]
  ours = [line(0, 1, 2), line(0, 0, 2), line(1, 0, 2), line(0, 0, 1, "tone"), line(7, 0, 4)]
  assert win_rate(ours, theirs) == {"overall": 0.5, "tone": 1.0}  # lost, won, equal; the last has no rival
