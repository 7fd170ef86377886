import json

import pytest

from amopo_jax.cli import lab
from amopo_jax.lab import studies


def test_it_writes_a_world_and_says_what_is_in_it(amopo, tmp_path):
  out = tmp_path / "world"
  status, text, err = amopo("lab", "world", f"--out={out}", "--train=12", "--heldout=4", "--seed=3")
  assert (status, err) == (0, "")
  lines = (out / "train.jsonl").read_text().splitlines()
  assert len([json.loads(line) for line in lines]) == 12
  assert f"{out}/train.jsonl: 12 records (" in text
  assert f"{out}/heldout.jsonl: 4 records (" in text
  assert "at the optimum" in text


def test_it_grades_responses(amopo, world, tmp_path):
  line = json.loads((world / "heldout.jsonl").read_text().splitlines()[0])
  responses = [{"prompt": line["prompt"], "context": "c", "response": r["content"]} for r in line["responses"]]
  path = tmp_path / "responses.jsonl"
  path.write_text("".join(json.dumps(one) + "\n" for one in responses))
  status, text, err = amopo("lab", "grade", f"--responses={path},{path}")
  assert (status, err) == (0, "")
  first, second = (response["scores"] for response in line["responses"])
  mean = (first["correctness"] + second["correctness"]) / 2
  assert f"{mean:.2f} → {mean:.2f}" in text
  assert "| optimum |" in text
  assert "| consistency | mean |" in amopo("lab", "grade", f"--responses={path}", "--dimensions=6")[1]


def test_what_is_missing_is_named(amopo):
  assert amopo("lab", "grade")[2].startswith("amopo lab: --responses is missing: grade: files of amopo generate")


def test_an_arm_that_a_study_has_not_is_told_before_anything_is_made(amopo, tmp_path):
  status, _, err = amopo("lab", "baselines", f"--out={tmp_path / 'lab'}", "--arms=amopo,dpoo")
  assert status == 2
  assert "no arm 'dpoo'" in err
  assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    (("baselines", "--dial=noise=0.2"), "--dial is a flag of amopo lab world, not of baselines; leave it out"),
    (("baselines", "--seed=3"), "--seed is a flag of amopo lab world, not of baselines"),
    (("world", "--seeds=3"), "--seeds is a flag of amopo lab study, not of world"),
    (("grade", "--out=x"), "--out is a flag of amopo lab world and study, not of grade"),
    (("baselines", "--smoke", "--steps=5"), "--smoke says how much is done, and so does --steps"),
  ],
)
def test_a_flag_that_would_change_nothing_is_refused(amopo, tmp_path, arguments, told):
  out = () if arguments[0] == "grade" else (f"--out={tmp_path / 'lab'}",)
  status, _, err = amopo("lab", *arguments, *out)
  assert status == 2
  assert told in err
  assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    (("--judge=j", "--model=m"), "--train_data is missing: a study with a judge needs --judge, --model, --train_data"),
    (("--judge=j", "--model=m", "--train_data=a", "--heldout_data=b"), "--config is missing"),
    (("--judge=j", "--model=m", "--train_data=a", "--heldout_data=b", "--config=configs/lab.py"), "a: no such file"),
    (("--config=configs/quickstart.py",), "config.data.contexts: overall is missing"),
    (("--out=gs://bucket/lab",), "--out=gs://bucket/lab: a study is kept on a disk"),
  ],
)
def test_a_judge_needs_what_is_to_be_judged(amopo, tmp_path, arguments, told):
  status, _, err = amopo("lab", "baselines", f"--out={tmp_path / 'lab'}", *arguments)
  assert status == 2
  assert told in err


@pytest.mark.parametrize(
  ("arguments", "shown"),
  [
    (("--arms=amopo,dpo", "--steps=7"), "--arms=amopo,dpo --seeds=5 --train=4000"),
    (
      ("--config=configs/lab.py", "--config.optim.clip=3.0"),
      "--config=configs/lab.py --config.optim.clip=3.0 --seeds=5",
    ),
    ((), "--seeds=5"),
  ],
)
def test_the_report_names_the_command(amopo, tmp_path, monkeypatch, arguments, shown):
  found, page = [], tmp_path / "report.md"
  page.write_text("the page")
  monkeypatch.setattr("amopo_jax.lab.run_study.run_study", lambda *given, **options: found.append(options) or page)
  status, text, err = amopo("lab", "baselines", f"--out={tmp_path / 'lab'}", *arguments)
  assert (status, err) == (0, "")
  assert "the page" in text
  assert found[0]["command"].startswith(f"amopo lab baselines --out={tmp_path / 'lab'} {shown}")


def test_every_study_can_be_named():
  assert set(lab.STUDIES) == set(studies.STUDIES)
