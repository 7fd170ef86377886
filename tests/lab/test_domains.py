"""Operations by hand, and that a domain's words are its own."""

import itertools
import random

import pytest

from amopo_jax.lab.domains import BY_VERB, DOMAINS, NOUNS, run_program


@pytest.mark.parametrize(
  "verb, items, answer",
  [
    ("capitals", "ant bat", "ANT BAT"),
    ("plurals", "ant bat", "ants bats"),
    ("reverse", "ant cat bat", "bat cat ant"),
    ("sort", "yak ant cat", "ant cat yak"),
    ("double", "3 1 9", "6 2 18"),
    ("increase", "3 1 9", "4 2 10"),
    ("totals", "3 1 9", "3 4 13"),
    ("missing", "3 1 9", "7 9 1"),
    ("run", "+2 *3 -1", "2 6 5"),
    ("rewind", "+2 *3 -1", "9 7 9"),
    ("parity", "+2 *3 -1", "even even odd"),
    ("peaks", "+2 *3 -1", "2 6 6"),
  ],
)
def test_an_operation_by_hand(verb, items, answer):
  assert BY_VERB[verb].operations[verb].edit(tuple(items.split())) == tuple(answer.split())


def test_the_register_has_one_digit():
  assert run_program(("-1", "*3", "+4")) == (9, 7, 1)


@pytest.mark.parametrize("name", DOMAINS)
def test_every_answer_is_made_of_the_forms(name):
  rng, domain = random.Random(0), DOMAINS[name]
  for operation in domain.operations.values():
    for _ in range(200):
      items = tuple(rng.sample(domain.items, rng.randint(2, 6)))
      assert set(operation.edit(items)) <= domain.forms
      assert len(operation.edit(items)) == len(items)


def test_each_noun_has_a_first_letter_of_its_own():
  assert len({noun[0] for noun in NOUNS}) == len(NOUNS)
  assert len(DOMAINS["text"].forms) == 3 * len(NOUNS)


def test_no_two_domains_share_a_verb_or_a_courtesy():
  words = [
    {*domain.operations, *(word for one in domain.operations.values() for word in one.announcements + one.explanations)}
    for domain in DOMAINS.values()
  ]
  for one, other in itertools.combinations(words, 2):
    assert one.isdisjoint(other)
