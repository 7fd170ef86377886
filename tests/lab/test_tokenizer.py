"""The world's tokenizer knows every word of the world and gives its text back."""

import random

import pytest
import transformers

from amopo_jax.data.contexts import PLACES, Context, condition
from amopo_jax.data.records import Message
from amopo_jax.data.tokenizer import load_tokenizer
from amopo_jax.lab.domains import DOMAINS
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.responders import RESPONSE_WORDS, draw_skill, respond
from amopo_jax.lab.spec import DEFAULT_SPEC, WorldSpec
from amopo_jax.lab.tokenizer import CONTEXT_TEMPLATES, SPECIAL_TOKENS, UNKNOWN, make_tokenizer, vocabulary
from amopo_jax.lab.world import draw_task

CONTEXTS = [Context("overall", None, CONTEXT_TEMPLATES["overall"])]
CONTEXTS += [Context(dimension, dimension, CONTEXT_TEMPLATES["dimension"], 0, 4) for dimension in DIMENSIONS]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp("tokenizer")
  make_tokenizer().save_pretrained(str(path))
  return path


@pytest.fixture(scope="module")
def tokenizer(directory):
  return load_tokenizer(directory)


def test_ids_follow_the_vocabulary(directory):
  loaded = transformers.AutoTokenizer.from_pretrained(str(directory))
  assert loaded.convert_ids_to_tokens(list(range(len(loaded)))) == list(vocabulary())
  assert tuple(vocabulary()[:4]) == SPECIAL_TOKENS
  assert len(vocabulary()) == len(set(vocabulary())) < 200


def test_special_tokens_survive_the_disk(directory):
  loaded = transformers.AutoTokenizer.from_pretrained(str(directory))
  assert (loaded.pad_token, loaded.unk_token, loaded.eos_token) == ("<|pad|>", "<|unk|>", "<|im_end|>")


def test_every_text_comes_back_word_for_word(tokenizer):
  rng = random.Random(0)
  for _ in range(300):
    task = draw_task(WorldSpec(num_items=(2, 6), slack=(0, 3)), rng)
    for text in (task.question, respond(task, draw_skill(rng), rng)):
      (ids,) = tokenizer.encode([text])
      assert len(ids) == len(text.split())
      assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.name)
@pytest.mark.parametrize("place", PLACES)
def test_no_instruction_has_an_unknown_word(tokenizer, context, place):
  scores = [None] if context.dimension is None else range(5)
  question = draw_task(DEFAULT_SPEC, random.Random(1)).question
  for score in scores:
    text = tokenizer.prompt_text(condition((Message("user", question),), context, score, place))
    (ids,) = tokenizer.encode([text])
    assert UNKNOWN not in tokenizer.decode(ids).split()


def test_a_dialogue_word_for_word(tokenizer):
  dialogue = (Message("system", "focus on everything ."), Message("user", "sort : bat ant ."))
  (ids,) = tokenizer.encode([tokenizer.prompt_text(dialogue)])
  assert tokenizer.decode(ids).split() == [
    *("<|im_start|>", "system", "focus", "on", "everything", ".", "<|im_end|>"),
    *("<|im_start|>", "user", "sort", ":", "bat", "ant", ".", "<|im_end|>"),
    *("<|im_start|>", "assistant"),
  ]


def test_a_response_ends_with_the_end_of_turn(tokenizer):
  (ids,) = tokenizer.encode_responses(["yes! ant , bat done"])
  assert tokenizer.decode(ids) == "yes! ant , bat done <|im_end|>"


def test_prompts_are_at_most_32_tokens_with_the_longest_context(tokenizer):
  rng = random.Random(2)
  for _ in range(100):
    prompt = (Message("user", draw_task(DEFAULT_SPEC, rng).question),)
    (ids,) = tokenizer.encode([tokenizer.prompt_text(condition(prompt, CONTEXTS[-1], 4, "before"))])
    assert len(ids) <= 32


def test_other_words_are_unknown_and_the_world_has_no_word_too_many(tokenizer):
  (ids,) = tokenizer.encode(["write a poem"])
  assert tokenizer.decode(ids).split() == [UNKNOWN] * 3
  for name, domain in DOMAINS.items():
    assert {*RESPONSE_WORDS[name], *domain.items, *domain.operations} < set(vocabulary(WorldSpec(domain=name)))
    assert len(vocabulary(WorldSpec(domain=name, dimensions=6, turns=3))) < 256
