import time

import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.metrics import MetricSums, add, summarize
from amopo_jax.window import Window

CONTEXTS = ("a", "b")


def sums(seed):
  draw = np.random.default_rng(seed)
  shapes = {"pairs": (), "loss": (), "tokens": (), "rewards": (2, 2), "logps": (2, 2), "responses": (2, 2)}
  fields = {name: draw.uniform(1, 2, shapes.get(name, (2,))).astype(np.float32) for name in MetricSums._fields}
  return MetricSums(**{name: jnp.asarray(value) for name, value in fields.items()})


def test_a_line_is_the_mean_over_its_steps_and_the_next_one_begins():
  window = Window(CONTEXTS)
  window.add(sums(0))
  window.add(sums(1))
  line = window.close()
  expected = summarize(add(sums(0), sums(1)), CONTEXTS)
  assert {key: line[key] for key in expected} == pytest.approx(expected)
  assert line["throughput/seconds_per_step"] > 0
  with pytest.raises(ValueError, match="no step"):
    window.close()


def test_rates_leave_out_pauses_and_steps_of_before_a_restart(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(time, "monotonic", lambda: now[0])

  def step(window, seed):
    now[0] += 2.0
    window.add(sums(seed))

  window = Window(CONTEXTS)
  step(window, 0)
  with window.paused():
    now[0] += 50.0
  step(window, 1)
  saved = window.state
  line = window.close()
  assert line["throughput/seconds_per_step"] == 2.0
  assert line["throughput/pairs_per_second"] == pytest.approx(float(sums(0).pairs + sums(1).pairs) / 4)
  resumed = Window(CONTEXTS)
  resumed.set_state(saved)
  now[0] += 30.0
  resumed.start_clock()
  step(resumed, 2)
  line = resumed.close()
  assert line["throughput/seconds_per_step"] == 2.0
  assert line["throughput/tokens_per_second"] == pytest.approx(float(sums(2).tokens) / 2, rel=1e-5)
  step(resumed, 3)
  assert resumed.close()["throughput/seconds_per_step"] == 2.0


def test_a_state_goes_on_as_if_nothing_had_happened():
  whole, first, second = Window(CONTEXTS), Window(CONTEXTS), Window(CONTEXTS)
  for window in (whole, first):
    window.add(sums(0))
  second.set_state(first.state)
  for window in (whole, second):
    window.add(sums(1))
  one, other = whole.close(), second.close()
  assert {k: v for k, v in one.items() if "throughput" not in k} == {
    k: v for k, v in other.items() if "throughput" not in k
  }
  second.set_state(Window(CONTEXTS).state)
  assert second.state == {"num_steps": 0, "sums": []}
