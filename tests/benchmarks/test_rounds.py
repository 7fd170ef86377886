import pytest

from benchmarks.contenders import Contender, WorkerFailure
from benchmarks.peers.serve import Counts
from benchmarks.rounds import CHECKED_STEPS, Check, check_all, fit_together, timed_rounds

WHO = {name: Contender(name, name) for name in "abc"}


class Fakes:
  """Workers that note what is asked of them; "b" dies at its step number `dies_at`."""

  def __init__(self, dies_at=0):
    self.notes, self.dies_at, self.counts = [], dies_at, Counts(1, 1, 1)

  def start(self, contender):
    fakes, made = self, []

    class Fake:
      counts = fakes.counts

      def step(self):
        made.append(1)
        fakes.notes.append(contender.label)
        if contender.label == "b" and len(made) == fakes.dies_at:
          raise WorkerFailure("b fell")
        return {"seconds": 1.0, "peak_bytes": 10, "loss": 2.0, "mean_logps": ()}

      def close(self):
        fakes.notes.append(contender.label.upper())

    return Fake()


def silent(text):
  del text


def test_the_order_turns_and_living_workers_close_at_the_end():
  fakes = Fakes()
  answers, failures = timed_rounds(WHO, fakes.start, silent, rounds=2, together=True)
  warm = "".join(name * (CHECKED_STEPS + 1) for name in "abc")
  assert "".join(fakes.notes) == warm + "bca" + "CBA"
  assert {name: len(found) for name, found in answers.items()} == {"a": 2, "b": 2, "c": 2}
  assert not failures


def test_fresh_turns_are_a_process_each():
  fakes = Fakes()
  timed_rounds(WHO, fakes.start, silent, rounds=1, together=False)
  assert "".join(fakes.notes) == "aaaAbbbBcccC"


@pytest.mark.parametrize("together", [True, False])
def test_who_fails_is_left_out_and_says_why(together):
  fakes = Fakes(dies_at=2)
  answers, failures = timed_rounds(WHO, fakes.start, silent, rounds=2, together=together)
  assert failures == {"b": "b fell"}
  assert [len(answers[name]) for name in "abc"] == [2, 0, 2]


def test_the_check_takes_them_one_by_one():
  fakes = Fakes(dies_at=1)
  checks, failures = check_all(WHO, fakes.start, silent)
  assert "".join(fakes.notes) == "aaAbccC"
  assert (list(checks), failures) == (["a", "c"], {"b": "b fell"})


def test_memory_of_all_decides():
  checks = {name: Check(Counts(1, 1, 1), [{"peak_bytes": 30}, {"peak_bytes": 40}]) for name in "ab"}
  assert fit_together(checks, free_bytes=100)
  assert not fit_together(checks, free_bytes=99)
