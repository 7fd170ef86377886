import pytest

from benchmarks.memory import interaction, measure, measure_apart


def test_the_interaction_is_what_grows_with_the_product_alone():
  peak = lambda length, vocabulary: 7 + 2 * length + 3 * vocabulary
  cells = {(s, v): {"peak": peak(s, v), "more": peak(s, v) + 5 * s * v} for s in (10, 20, 40) for v in (100, 400)}
  assert interaction(cells, "peak") == 0
  assert interaction(cells, "more") == 5 * 30 * 300


@pytest.mark.slow
def test_temporaries_of_a_cell_hold_no_logits_of_the_whole_row():
  """1,024 scored tokens at a time: a row four times as long with eight times the words may not hold the difference."""
  cells = {(s, v): measure(s, v) for s in (1024, 4096) for v in (4096, 32768)}
  logits = 3072 * 28672 * 4 / 2**20
  assert interaction(cells, "temporaries") < 0.1 * logits
  assert all(found["temporaries"] > 0 for found in cells.values())


@pytest.mark.slow
def test_a_cell_in_a_process_of_its_own_gives_the_same_temporaries():
  assert measure_apart(256, 512)["temporaries"] == pytest.approx(measure(256, 512)["temporaries"], rel=0.1)
