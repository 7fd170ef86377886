import numpy as np

from benchmarks.peers.pairs import load, save
from benchmarks.peers.rows import make_rows


def test_a_file_keeps_the_pairs(job, tmp_path):
  pairs = job.pairs
  save(tmp_path / "again.npz", pairs)
  again = load(tmp_path / "again.npz")
  assert again.shape == pairs.shape == (2, 2, 2)
  for one, other in zip(again.sequences, pairs.sequences, strict=True):
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(other))
  np.testing.assert_array_equal(again.noise, pairs.noise)


def test_rows_hold_every_sequence_between_its_padding(job):
  rows = make_rows(job.pairs)
  found = []
  for row in range(len(rows.prompt)):
    prompt = rows.prompt[row, rows.prompt.shape[1] - rows.prompt_mask[row].sum() :]
    for ids, mask in ((rows.chosen[row], rows.chosen_mask[row]), (rows.rejected[row], rows.rejected_mask[row])):
      found.append(np.concatenate([prompt, ids[: mask.sum()]]))
  for sequence, (prompt, response) in zip(found, job.pairs.sequences, strict=True):
    np.testing.assert_array_equal(sequence, np.concatenate([prompt, response]))
  assert rows.length == 40 + 9 + 9
  assert rows.counts().tokens == 8 * rows.length
