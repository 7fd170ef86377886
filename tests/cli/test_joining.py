import pytest

from amopo_jax import join as module
from amopo_jax.cli.joining import join_to_tell
from amopo_jax.types import InputError, RunFailure


@pytest.mark.parametrize(
  ("verb", "arguments", "joined"),
  [
    ("train", ["--config=gone.py", "--processes=2", "--process=1", "--coordinator=host:1"], [("2", 1, "host:1")]),
    ("export", ["--no_such=1", "--processes=auto"], [("auto", None, "")]),
    ("train", ["--config=gone.py"], []),
    ("train", ["--processes=2", "--process=one"], []),
    ("plan", ["--processes=2"], []),
  ],
)
def test_a_mistake_is_told_where_there_are_others(monkeypatch, verb, arguments, joined):
  found = []
  monkeypatch.setattr(module, "join", lambda *given, timeout: found.append(given))
  join_to_tell(verb, arguments, 2)
  assert found == joined


@pytest.mark.parametrize("error", [InputError("no cluster was found"), RunFailure("did not find together")])
def test_others_that_cannot_be_met_are_let_be(monkeypatch, error):
  asked = []

  def join(*given, timeout):
    asked.append(given)
    raise error

  monkeypatch.setattr(module, "join", join)
  join_to_tell("train", ["--processes=auto"], 2)
  assert len(asked) == 1
