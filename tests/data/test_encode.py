import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.data.contexts import Context, ContextSpec
from amopo_jax.data.encode import Limits, encode_pair, fits_by_bytes
from amopo_jax.data.encoded import Dropped
from amopo_jax.data.records import Message, Pair, Response
from amopo_jax.types import InputError

LONG = Limits(10_000, 5_000, "error")
SCORES = {"help": 3.0, "truth": 1.0}, {"help": 1.0, "truth": 1.0}


def make_pair(prompt, chosen="Yes.", rejected="No, never.", origin="train.jsonl:7"):
  prompt = (Message("user", prompt),) if isinstance(prompt, str) else prompt
  return Pair(prompt, Response(chosen, SCORES[0]), Response(rejected, SCORES[1]), origin)


def decode(tokenizer, encoded):
  return [tokenizer.decode(prompt) for prompt in encoded.prompts], [tokenizer.decode(r) for r in encoded.responses]


def turns(count):
  roles = ("user", "assistant")
  history = [Message(roles[number % 2], f"turn {number} about the river") for number in range(2 * count)]
  return (Message("system", "Be kind."), *history, Message("user", "Which boats lay at the shore?"))


def test_every_context_has_its_instruction_and_both_responses_are_shared(tokenizer, contexts):
  prompts, responses = decode(tokenizer, encode_pair(make_pair("Why?"), contexts, tokenizer, LONG))
  assert prompts[1] == (
    "<|im_start|>user\nFocus on help, level 4.\n\nWhy?<|im_end|>\n<|im_start|>assistant\n"  # 3 of 0 to 4 is 4 of 1 to 5
  )
  assert prompts[2] == "<|im_start|>user\nFocus on truth, level 2.\n\nWhy?<|im_end|>\n<|im_start|>assistant\n"
  assert responses == ["Yes.<|im_end|>", "No, never.<|im_end|>"]


def test_annotations_come_along(tokenizer, contexts):
  encoded = encode_pair(make_pair("Why?"), contexts, tokenizer, LONG, index=5)
  np.testing.assert_array_equal(encoded.is_ordered, [True, True, False])
  np.testing.assert_allclose(encoded.score_gap, [1, 0.5, 0])
  assert (encoded.index, encoded.num_cut, encoded.origin) == (5, 0, "train.jsonl:7")


def test_boundary_merges_no_tokens(tokenizer, contexts):
  # " the" is one token of the vocabulary; a response that begins with a space keeps it to itself
  encoded = encode_pair(make_pair("Why?", chosen=" the"), contexts, tokenizer, LONG)
  assert tokenizer.decode(encoded.responses[0]) == " the<|im_end|>"
  assert tokenizer.decode(encoded.prompts[0]).endswith("assistant\n")


def test_cut_drops_the_oldest_turns_first_and_whole(tokenizer, contexts):
  whole = encode_pair(make_pair(turns(4)), contexts, tokenizer, LONG)
  cut = encode_pair(make_pair(turns(4)), contexts, tokenizer, Limits(whole.longest - 1, 100, "cut"))
  for prompt in decode(tokenizer, cut)[0]:
    assert "Be kind." in prompt
    assert "turn 0 " not in prompt
    assert "turn 1 " not in prompt
    assert "<|im_end|>\n<|im_start|>user\nturn 2 about" in prompt
    assert prompt.endswith("Which boats lay at the shore?<|im_end|>\n<|im_start|>assistant\n")
  assert cut.num_cut == whole.longest - cut.longest
  np.testing.assert_array_equal(cut.responses[1], whole.responses[1])


@pytest.mark.parametrize("place", ["before", "after", "system"])
def test_cut_then_takes_the_beginning_of_the_question(tokenizer, contexts, place):
  spec = dataclasses.replace(contexts, place=place)
  question = " ".join(f"word{number}" for number in range(200)) + " the very end?"
  cut = encode_pair(make_pair((*turns(2)[:-1], Message("user", question))), spec, tokenizer, Limits(150, 30, "cut"))
  assert cut.longest <= 150
  assert cut.longest > 140  # no more is cut than needed
  for prompt, words in zip(decode(tokenizer, cut)[0], ["Answer well.", "Focus on help", "Focus on truth"], strict=True):
    assert words in prompt
    assert "Be kind." in prompt
    assert "the very end?" in prompt
    assert "about the river" not in prompt  # the history went first
    assert "word0 " not in prompt
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
  assert decode(tokenizer, cut)[1] == ["Yes.<|im_end|>", "No, never.<|im_end|>"]


def test_long_response_loses_its_end_only_beyond_its_share(tokenizer, contexts):
  response = " ".join(f"word{number}" for number in range(100))
  whole = encode_pair(make_pair("Why?", chosen=response), contexts, tokenizer, LONG)
  limits = Limits(whole.longest - 5, 20, "cut")
  cut = encode_pair(make_pair("Why?", chosen=response), contexts, tokenizer, limits)
  np.testing.assert_array_equal(cut.responses[0], whole.responses[0][:-5])  # though far more than 20 tokens
  for one, two in zip(cut.prompts, whole.prompts, strict=True):
    np.testing.assert_array_equal(one, two)
  np.testing.assert_array_equal(cut.responses[1], whole.responses[1])
  assert cut.num_cut == 5


def test_both_too_long_get_their_shares(tokenizer, contexts):
  long = " ".join(f"word{number}" for number in range(300))
  cut = encode_pair(make_pair(long + " end?", chosen=long, rejected=long), contexts, tokenizer, Limits(200, 60, "cut"))
  assert max(map(len, cut.prompts)) in range(136, 141)
  assert [len(response) for response in cut.responses] == [200 - max(map(len, cut.prompts))] * 2
  assert tokenizer.decode(cut.responses[0]).startswith("word0 word1")


def test_drop_and_error(tokenizer, contexts):
  pair = make_pair("Why? " * 100)
  dropped = encode_pair(pair, contexts, tokenizer, Limits(50, 20, "drop"))
  assert isinstance(dropped, Dropped)
  assert dropped.origin == "train.jsonl:7"
  with pytest.raises(InputError, match=r"train.jsonl:7: prompt longer than the row: \d+ tokens, max_length is 50; "):
    encode_pair(pair, contexts, tokenizer, Limits(50, 20, "error"))


def test_prompt_that_cutting_cannot_fit_is_an_error(tokenizer):
  spec = ContextSpec((Context("long", None, "Consider every one of these words with care. " * 9),), "before")
  with pytest.raises(InputError, match=r"l:7: prompt longer than the row: its instruction .* raise max_length"):
    encode_pair(make_pair("Why is it so?"), spec, tokenizer, Limits(60, 20, "cut"))


def test_template_error_names_the_record(contexts, tokenizer, monkeypatch):
  def refuse(messages):
    raise InputError("chat template of x: no; change it")

  monkeypatch.setattr(tokenizer, "prompt_text", refuse)
  with pytest.raises(InputError, match=r"^train.jsonl:7: chat template of x: no; change it$"):
    encode_pair(make_pair("Why?"), contexts, tokenizer, LONG)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [((100, 100, "cut"), "below max_length 100"), ((100, 0, "cut"), "above 0"), ((100, 50, "shorten"), "'shorten'")],
)
def test_bad_limits_are_refused(arguments, message):
  with pytest.raises(InputError, match=message):
    Limits(*arguments)


texts = st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1, max_size=120).map("{}?".format)


@settings(deadline=None, max_examples=60)
@given(question=texts, chosen=texts, rejected=texts, history=st.integers(0, 3), length=st.integers(90, 200))
def test_cut_always_fits_and_keeps_what_it_promises(tokenizer, contexts, question, chosen, rejected, history, length):
  pair = make_pair((*turns(history)[:-1], Message("user", question)), chosen, rejected)
  limits = Limits(length, length // 4, "cut")
  whole = encode_pair(pair, contexts, tokenizer, LONG)
  cut = encode_pair(pair, contexts, tokenizer, limits)
  assert cut.longest <= length
  assert (cut.num_cut > 0) == (whole.longest > length)
  for one, two in zip(cut.responses, whole.responses, strict=True):
    np.testing.assert_array_equal(one, two[: len(one)])
    assert len(one) >= min(len(two), limits.max_response)
  header = tokenizer.encode(["<|im_end|>\n<|im_start|>assistant\n"])[0]
  for prompt in cut.prompts:
    np.testing.assert_array_equal(prompt[-len(header) :], header)


@settings(deadline=None, max_examples=60)
@given(question=texts, chosen=texts, length=st.integers(20, 400))
def test_bytes_never_promise_too_much(tokenizer, contexts, question, chosen, length):
  pair = make_pair(question, chosen)
  longest = encode_pair(pair, contexts, tokenizer, LONG).longest
  if fits_by_bytes(pair, contexts, tokenizer, length):
    assert longest <= length
  assert fits_by_bytes(pair, contexts, tokenizer, 10_000)
