"""What a policy's answers are worth, by a judge that counts letters."""

import json
import sys

import pytest

from amopo_jax.cli.configs import bundled_spec
from amopo_jax.lab import measure as module
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.run_codec import to_dict

JUDGE = f"""
import json, sys
with open(sys.argv[2], "w") as out:
  for line in open(sys.argv[1]):
    print(json.dumps({{"scores": dict.fromkeys({DIMENSIONS}, len(json.loads(line)["response"]))}}), file=out)
"""


def line(sample, response):
  return {"record": 0, "context": "overall", "sample": sample, "response": response, "num_tokens": 2, "has_ended": True}


def write(path, lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(one) + "\n" for one in lines))


@pytest.fixture
def measured(tmp_path, monkeypatch):
  """A policy that answers "xx" greedily and "x", "xxx" by chance, beside a rival."""
  answers = {"greedy": [line(0, "xx")], "sampled": [line(0, "x"), line(1, "xxx")]}
  asked = []

  def generate(spec, request, out):
    asked.append((spec.model.path, request.num_samples, request.sampling.temperature))
    write(tmp_path / out, answers["greedy" if request.sampling.temperature == 0 else "sampled"])

  def score(spec, out):
    assert spec.data.on_error == "raise"
    both = enumerate(("chosen", "rejected"))
    likely = [{"index": n, "response": name, "length": 1, "sum_logp": -1.0 - n} for n, name in both]
    likely = [{"record": 0, "context": "overall", **line} for line in likely]
    write(tmp_path / out, likely)

  monkeypatch.setattr(module, "generate", generate)
  monkeypatch.setattr(module, "score_pairs", score)
  (tmp_path / "judge.py").write_text(JUDGE)
  responses = [{"content": "a", "scores": {}}, {"content": "b", "scores": {}}]
  write(tmp_path / "worlds" / "w" / "files" / "heldout.jsonl", [{"prompt": "q", "responses": responses, "chosen": 0}])
  write(tmp_path / "seed0" / "start" / "greedy.jsonl", [line(0, "xxx")])
  write(tmp_path / "seed0" / "start" / "sampled.jsonl", [line(0, ""), line(1, "xxx")])
  run = to_dict(bundled_spec("lab"))
  run["data"]["contexts"] = {"overall": run["data"]["contexts"]["overall"]}
  judge = f"{sys.executable} {tmp_path / 'judge.py'}"
  ask = {"max_new": 4, "draws": 2, "seed": 0, "judge": judge}
  policy = tmp_path / "seed0" / "amopo"
  policy.mkdir()
  found = [module.measure(policy, run, "org/model", "worlds/w", "seed0/start", **ask) for _ in range(2)]
  assert found[0] == found[1]
  return found[0], asked


def test_scores_are_the_judge_s_and_draws_meet_the_rival_s(measured):
  found, _ = measured
  assert found["scores"]["greedy"]["overall"]["mean"] == 2.0
  assert found["scores"]["sampled"]["overall"]["correctness"] == 2.0
  assert found["wins"] == {"greedy": {"overall": 0.0}, "sampled": {"overall": 0.75}}  # one won, one equal


def test_the_policy_answers_once_in_each_way(measured):
  found, asked = measured
  assert asked == [("org/model", 1, 0.0), ("org/model", 2, 1.0)]
  assert (found["tokens_per_response"], found["ended"], found["accuracy"]) == (2.0, 1.0, {"overall": 1.0})
