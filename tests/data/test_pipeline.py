import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from amopo_jax.data.collate import count_pairs
from amopo_jax.data.layout import Layout
from amopo_jax.data.pack import PackSpec
from amopo_jax.data.pipeline import make_stream
from amopo_jax.types import InputError

PACK = PackSpec(256, 4, 8, 3)


def open_stream(dataset, *, num_streams=2, owned=None, num_epochs=2, num_workers=0, seed=0):
  return make_stream(
    [dataset],
    PACK,
    seed=seed,
    num_epochs=num_epochs,
    num_streams=num_streams,
    owned=range(num_streams) if owned is None else owned,
    num_workers=num_workers,
    shuffle=True,
    lookahead=3,
  )


def steps(stream):
  """All steps that are left, each with the state after it as a checkpoint would keep it."""
  return [(groups, json.loads(json.dumps(stream.get_state()))) for groups in stream]


def assert_same(one, two):
  assert len(one) == len(two)
  jax.tree.map(np.testing.assert_array_equal, [groups for groups, _ in one], [groups for groups, _ in two])
  assert [state for _, state in one] == [state for _, state in two]


def all_indices(found):
  return np.concatenate([group.index[group.index >= 0] for groups, _ in found for group in groups]).tolist()


@pytest.fixture(scope="module")
def whole(dataset):
  return steps(open_stream(dataset))


def test_two_epochs_have_every_pair_twice(whole):
  assert len(whole) > 6
  assert sorted(all_indices(whole)) == sorted(2 * list(range(23)))


def test_resume_is_exact_where_contexts_are_drawn(dataset):
  drawing = dataset.laying_out(Layout(contexts=1))
  whole = steps(open_stream(drawing))
  for done in (1, 3, len(whole) - 1):
    stream = open_stream(drawing)
    stream.set_state(whole[done - 1][1])
    assert_same(steps(stream), whole[done:])


def test_resume_is_exact_at_every_step(dataset, whole):
  """Also in the second epoch, and with a stream that has already ended."""
  states = [open_stream(dataset).get_state(), *(state for _, state in whole)]
  for done, state in enumerate(states):
    stream = open_stream(dataset)
    stream.set_state(state)
    assert_same(steps(stream), whole[done:])


def test_setting_a_state_forgets_what_was_going_on(dataset, whole):
  stream = open_stream(dataset)
  for _ in range(3):
    next(stream)
  stream.set_state(whole[0][1])
  assert_same(steps(stream), whole[1:])


def test_a_state_does_not_change_after_it_was_taken(dataset):
  stream = open_stream(dataset)
  next(stream)
  state = stream.get_state()
  kept = json.dumps(state)
  list(stream)
  assert json.dumps(state) == kept


def test_processes_share_the_streams_without_knowing_of_each_other(dataset, whole):
  """Two processes with a stream each see what one process with both sees, and can swap after a checkpoint."""
  parts = [steps(open_stream(dataset, owned=[stream])) for stream in range(2)]
  for number, (groups, _) in enumerate(whole):
    for stream, part in enumerate(parts):
      if number < len(part):
        jax.tree.map(np.testing.assert_array_equal, groups[stream], part[number][0][0])
  merged = parts[0][2][1]
  merged["streams"].update(parts[1][2][1]["streams"])
  assert merged == whole[2][1]


def test_worker_processes_change_nothing(dataset, whole):
  stream = open_stream(dataset, num_workers=2)
  try:
    stream.set_state(whole[0][1])
    head = [(next(stream), stream.get_state()) for _ in range(3)]  # by now the workers have prepared more
    assert_same(head, whole[1:4])
    alone = open_stream(dataset)
    alone.set_state(head[-1][1])
    assert_same(steps(alone), whole[4:])
    assert_same(steps(stream), whole[4:])
  finally:
    stream.close()


def test_order_does_not_depend_on_the_number_of_streams(dataset):
  for num_streams in (1, 3):
    found = steps(open_stream(dataset, num_streams=num_streams, num_epochs=1))
    assert sorted(all_indices(found)) == list(range(23))


def test_streams_that_end_early_emit_empty_groups(dataset):
  found = steps(open_stream(dataset, num_streams=5, num_epochs=1))
  counts = [[count_pairs([group]) for group in groups] for groups, _ in found]
  assert all(len(row) == 5 for row in counts)
  assert all(sum(row) > 0 for row in counts)
  assert any(0 in row for row in counts)
  stream = open_stream(dataset, num_streams=5)
  assert count_pairs(stream.empty_groups()) == 0
  jax.tree.map(lambda one, two: np.testing.assert_equal(one.shape, two.shape), stream.empty_groups(), found[0][0])


def test_an_ended_stream_stays_ended(dataset):
  stream = open_stream(dataset, num_epochs=1)
  last = steps(stream)[-1][1]
  assert list(stream) == []
  assert stream.get_state() == last


def test_without_epochs_there_is_no_end(dataset):
  stream = open_stream(dataset, num_epochs=None)
  found = [(next(stream), stream.get_state()) for _ in range(40)]
  assert max(np.bincount(all_indices(found))) > 3
  assert stream.epoch > 3


def test_epoch_counts_what_was_handed_out(dataset):
  stream = open_stream(dataset)
  assert stream.epoch == 0
  seen = 0
  for groups in stream:
    seen += count_pairs(groups)
    assert stream.epoch == pytest.approx(seen / 23, abs=1.5 / 23)  # the last stride of a stream may pass the end


def test_seed_decides_the_order(dataset):
  first = lambda seed: next(open_stream(dataset, seed=seed))[0].index.tolist()
  assert first(0) == first(0)
  assert first(0) != first(1)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"num_streams": 3}, "num_streams was 3, now it is 2"),
    ({"num_pairs": 22}, "num_pairs was 22, now it is 23"),
    ({"streams": {"0": {"next": 0, "pending": []}}}, r"has no streams \[1\]"),
  ],
)
def test_a_state_of_something_else_is_refused(dataset, change, message):
  stream = open_stream(dataset)
  with pytest.raises(InputError, match=message):
    stream.set_state(stream.get_state() | change)


@pytest.mark.parametrize("owned", [[], [2], [-1]])
def test_streams_out_of_range_are_refused(dataset, owned):
  with pytest.raises(InputError, match="are not streams of 0 to 1"):
    open_stream(dataset, owned=owned)


WORKERS = """
import pathlib, pickle, sys, time
sys.path.insert(0, {root!r})
from tests.data.test_pipeline import open_stream

if __name__ == "__main__":
  stream = open_stream(pickle.loads(pathlib.Path({data!r}).read_bytes()), num_workers=2)
  next(stream)
  print("ready", flush=True)
  time.sleep(60)
"""


def children(pid):
  """Of all its threads."""
  files = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
  return {int(child) for file in files for child in file.read_text().split()}


def is_alive(pid):
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
  except FileNotFoundError:
    return False


def test_workers_leave_signals_to_the_parent_and_end_when_it_is_killed(dataset, tmp_path):
  (tmp_path / "data").write_bytes(pickle.dumps(dataset))
  root = str(pathlib.Path(__file__).parents[2])
  (tmp_path / "main.py").write_text(WORKERS.format(root=root, data=str(tmp_path / "data")))
  command = [sys.executable, str(tmp_path / "main.py")]
  parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
  assert parent.stdout is not None
  assert parent.stdout.readline() == "ready\n"
  workers = {child for child in children(parent.pid) if "spawn_main" in cmdline(child)}
  assert len(workers) == 2
  for worker in workers:
    os.kill(worker, signal.SIGINT)
    os.kill(worker, signal.SIGTERM)
  time.sleep(0.5)
  assert all(map(is_alive, workers))
  parent.kill()
  parent.wait()
  deadline = time.monotonic() + 20
  while any(map(is_alive, workers)) and time.monotonic() < deadline:
    time.sleep(0.1)
  assert not any(map(is_alive, workers))


def cmdline(pid):
  return pathlib.Path(f"/proc/{pid}/cmdline").read_text()
