import pytest

from amopo_jax import train as trainer
from amopo_jax.train import Outcome


@pytest.fixture
def asked(monkeypatch):
  """Takes the trainer's place: what it was asked for, and the outcome it will report."""
  found = {"outcome": Outcome(7, "")}

  def stand_in(spec, workdir, console):
    found.update(spec=spec, workdir=workdir)
    return found["outcome"]

  monkeypatch.setattr(trainer, "train", stand_in)
  return found


def test_it_trains_what_the_flags_say(amopo, asked, config_file, make_spec):
  status, out, err = amopo("train", f"--config={config_file()}", "--workdir=here", "--config.optim.clip=1.5")
  assert (status, err) == (0, "")
  assert (asked["spec"], asked["workdir"]) == (make_spec(optim__clip=1.5), "here")
  assert out == "done: 7 steps; amopo export --workdir=here --out=DIR writes the model\n"


def test_a_run_that_was_stopped_says_how_to_go_on(amopo, asked, config_file):
  asked["outcome"] = Outcome(3, "SIGTERM")
  status, out, _ = amopo("train", f"--config={config_file()}", "--workdir=here")
  assert status == 143
  assert out == "SIGTERM: saved at step 3; the same command goes on from there\n"


def test_a_finished_run_is_found_finished(amopo, trained, config_file):
  workdir, _ = trained
  status, out, err = amopo("train", f"--config={config_file(train__epochs=3)}", f"--workdir={workdir}")
  assert (status, err) == (0, "")
  assert "resumed at step" in out
