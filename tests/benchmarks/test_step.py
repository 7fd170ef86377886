import json
import sys

import pytest

from benchmarks import step
from benchmarks.peers.serve import Job


def run(monkeypatch, *arguments):
  monkeypatch.setattr(sys, "argv", ["step", *arguments])
  step.main()


@pytest.mark.slow
def test_a_tiny_run_from_end_to_end(tmp_path, monkeypatch, capsys):
  chosen = "--contenders=ours,unshared,released,clean_packed"
  run(
    monkeypatch,
    "--shape=tiny",
    "--lengths=tiny",
    chosen,
    "--variant=model.remat=full",
    "--rounds=1",
    f"--json={tmp_path}/out.json",
  )
  content = json.loads((tmp_path / "out.json").read_text())
  assert all(verdict["is_equal"] for verdict in content["equality"].values())
  assert list(content["contenders"]) == ["ours", "unshared", "released", "clean_packed", "model.remat=full"]
  assert content["times_ours"]["ours"] == 1
  recomputed = {name: content["contenders"][name]["counts"]["recomputed"] for name in ("ours", "model.remat=full")}
  assert recomputed == {"ours": ["scores", "head"], "model.remat=full": ["layers", "attention", "scores", "head"]}
  assert not content["failures"]
  assert "GFLOP/s" in capsys.readouterr().out


@pytest.mark.parametrize("is_equal", [True, False])
def test_times_of_another_computation_end_in_an_error(is_equal, tmp_path, monkeypatch):
  verdict = {"ours": {"is_equal": True}, "released": {"is_equal": is_equal}}
  monkeypatch.setattr(step, "measure", lambda args, job: {"equality": verdict})
  call = lambda: run(monkeypatch, "--shape=tiny", "--lengths=tiny", f"--json={tmp_path}/out.json")
  if is_equal:
    call()
  else:
    with pytest.raises(SystemExit, match="not shown to compute the same: released; their times mean nothing"):
      call()
  assert json.loads((tmp_path / "out.json").read_text())["equality"] == verdict


@pytest.mark.parametrize(
  "argument, reason",
  [("--contenders=ours,nobody", "unknown contenders nobody"), ("--data=x.jsonl", "--data needs --tokenizer")],
)
def test_a_wrong_argument_is_refused_with_its_reason(argument, reason, monkeypatch, capsys):
  with pytest.raises(SystemExit):
    run(monkeypatch, argument)
  assert reason in capsys.readouterr().err


def test_pairs_with_longer_rows_are_left_out(monkeypatch):
  def lengths(*more):
    monkeypatch.setattr(sys, "argv", ["step", "--shape=tiny", "--lengths=ultrafeedback", "--pairs=4", *more])
    return step._lengths(step.arguments())

  assert lengths("--longest=620")[-1] != lengths()[-1]
  assert all(pair.question + 149 + max(pair.chosen, pair.rejected) <= 620 for pair in lengths("--longest=620"))


def test_a_variant_takes_keys_and_flags_of_xla():
  job = Job(options={"overrides": ["model.remat=dots"]}, **{name: None for name in Job._fields if name != "options"})
  found = step.variants(["optim.mu_dtype=bfloat16,--xla_a=1,--xla_b=2", "model.unroll=4"], job)
  both, keys = found.values()
  assert both.options["overrides"] == ["model.remat=dots", "optim.mu_dtype=bfloat16"]
  assert both.xla_flags == "--xla_a=1 --xla_b=2"
  assert keys.xla_flags == ""
