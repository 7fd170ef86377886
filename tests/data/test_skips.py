"""Reasons are told apart by what they say, not by where and with which numbers."""

from amopo_jax.data.skips import SkipReason, SkipTally


def test_origins_and_numbers_make_no_difference():
  tally = SkipTally()
  for line, score in ((3, 7), (12, 9.5), (40, 7)):
    tally.add(f"hf://a b/train.jsonl:{line}: 'truth' is {score}, outside the declared range 0 to 4")
  tally.add("train.jsonl:5: 'tone' is 7, outside the declared range 0 to 4")
  assert tally.total == 4
  assert tally.commonest() == (
    SkipReason(3, "hf://a b/train.jsonl:3: 'truth' is 7, outside the declared range 0 to 4"),
    SkipReason(1, "train.jsonl:5: 'tone' is 7, outside the declared range 0 to 4"),
  )


def test_tallies_add_up():
  one, two = SkipTally(), SkipTally()
  one.add("f:1: empty")
  two.add("f:2: empty")
  two.add("f:3: broken")
  two.add_all(one.commonest())
  assert two.total == 3
  assert two.commonest() == (SkipReason(2, "f:2: empty"), SkipReason(1, "f:3: broken"))


def test_no_more_than_a_hundred_kinds_are_kept_and_none_is_lost():
  tally = SkipTally()
  for number in range(150):
    tally.add(f"f:{number}: {chr(0x4E00 + number)}")
  assert tally.total == sum(reason.count for reason in tally.commonest()) == 150
  assert len(tally.commonest()) == 101
