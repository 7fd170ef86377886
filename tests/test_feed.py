import jax
import numpy as np
import pytest

from amopo_jax import feed, processes
from amopo_jax.data.pipeline import make_stream
from amopo_jax.feed import Feed, holders, make_feed_spec
from amopo_jax.mesh import make_mesh
from amopo_jax.prepare import prepare
from amopo_jax.stopping import StopRequest
from amopo_jax.types import InputError


@pytest.fixture(scope="module")
def pod(tpu_devices):
  """A mesh over four hosts of four chips each."""
  return make_mesh(data=1, fsdp=-1, tensor=1, devices=tpu_devices("v5e:4x4"))


@pytest.mark.parametrize("rows", [1, 2, 4, 8, 16])
def test_a_group_is_packed_where_a_row_of_it_lies(pod, rows):
  owner = [device.process_index for device in pod.devices.flat]
  groups = [owner[first : first + rows] for first in range(0, 16, rows)]
  assert holders(pod, 16 // rows, rows) == [set(group) for group in groups]


def test_with_several_rows_per_device_too(pod):
  owner = [device.process_index for device in pod.devices.flat]
  assert holders(pod, 8, 6) == [set(owner[2 * group : 2 * group + 2]) for group in range(8)]


def test_rows_that_tensor_shards_repeat_are_packed_by_all_of_them(tpu_devices):
  mesh = make_mesh(data=1, fsdp=2, tensor=8, devices=tpu_devices("v5e:4x4"))
  both = [{device.process_index for device in half.flat} for half in mesh.devices[0]]
  assert holders(mesh, 2, 1) == both


def test_every_pair_is_counted_by_one_process(pod, monkeypatch):
  monkeypatch.setattr(processes, "is_several", lambda: True)
  counted = []
  for process in range(4):
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    plan = make_feed_spec(pod, num_streams=4, accumulation=2, rows=8, max_pairs=8)
    assert plan.counted <= set(plan.share.groups)
    assert set(plan.owned) == {group + micro * 2 for micro in (0, 1) for group in plan.share.groups}
    counted += plan.counted
  assert sorted(counted) == [0, 1]


def test_places_that_do_not_divide_are_refused_with_several_processes(pod, monkeypatch):
  make_feed_spec(pod, num_streams=2, accumulation=1, rows=8, max_pairs=7)
  monkeypatch.setattr(processes, "is_several", lambda: True)
  with pytest.raises(InputError, match="max_pairs: 14 places of a micro-batch do not divide over 16 devices"):
    make_feed_spec(pod, num_streams=2, accumulation=1, rows=8, max_pairs=7)


@pytest.fixture(scope="module")
def run(make_spec):
  return prepare(make_spec(), None)


@pytest.fixture
def open_feed(run):
  def open_feed(stop=None):
    data, plan = run.data, run.feed
    stream = make_stream(
      data.train,
      data.pack,
      seed=0,
      num_epochs=1,
      num_streams=plan.num_streams,
      owned=plan.owned,
      num_workers=0,
      shuffle=True,
    )
    return Feed(stream, plan, StopRequest() if stop is None else stop)

  return open_feed


def indices(feed):
  return [np.asarray(batch.index).tolist() for batch in feed]


def test_one_step_ahead_hands_out_the_same_batches(open_feed, monkeypatch):
  """What several processes do, done by one: its sum over processes is its own."""
  alone = indices(open_feed())
  monkeypatch.setattr(processes, "is_several", lambda: True)
  assert indices(open_feed()) == alone
  assert len(alone) > 2


@pytest.mark.parametrize("is_several", [False, True])
def test_its_state_is_that_after_the_batch_handed_out_last(open_feed, monkeypatch, is_several):
  monkeypatch.setattr(processes, "is_several", lambda: is_several)
  first, second = open_feed(), open_feed()
  next(first)
  second._stream.set_state(first.state)
  assert indices(second) == indices(first)


def test_a_request_to_stop_ends_it_at_once(open_feed):
  stop = StopRequest()
  feed = open_feed(stop)
  next(feed)
  stop.signal_name = "SIGTERM"
  assert next(feed, None) is None
  assert feed.is_stopped


def test_of_several_processes_all_make_the_step_that_was_begun(open_feed, monkeypatch):
  monkeypatch.setattr(processes, "is_several", lambda: True)
  stop = StopRequest()
  feed = open_feed(stop)
  next(feed)  # the next one's sum is under way
  stop.signal_name = "SIGTERM"
  assert next(feed, None) is not None
  assert next(feed, None) is None
  assert feed.is_stopped


def test_the_end_of_the_data_is_no_request(open_feed):
  feed = open_feed()
  assert indices(feed)
  assert not feed.is_stopped


def test_weights_sum_to_one_over_the_step(open_feed):
  feed = open_feed()
  for batch in feed:
    assert float(np.asarray(batch.pairs.weight).sum()) == pytest.approx(1)
    assert int((np.asarray(batch.index) >= 0).sum()) == feed.num_pairs


def test_the_sum_is_over_processes_and_not_over_devices(run):
  np.testing.assert_array_equal(feed._make_sum(run.mesh)(np.asarray([3, 1], np.int32)), [3, 1])
