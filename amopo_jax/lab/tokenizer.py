"""A word-level tokenizer over the closed vocabulary of the world, in the Hugging Face format with ChatML.

White space separates words and is otherwise not encoded, so decoding gives the world's text back exactly.
"""

import string
from collections.abc import Sequence
from types import MappingProxyType

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from amopo_jax.lab.domains import DOMAINS
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.responders import RESPONSE_WORDS
from amopo_jax.lab.tasks import LAYOUTS

CONTEXT_TEMPLATES = MappingProxyType(
  {"overall": "focus on everything .", "dimension": "focus on {dimension} score {score} ."}
)
"""Instructions for the contexts of a run on this world, as data/contexts.py fills them in; all in the vocabulary."""

PAD, UNKNOWN, TURN_START, TURN_END = SPECIAL_TOKENS = ("<|pad|>", "<|unk|>", "<|im_start|>", "<|im_end|>")
"""Token ids 0 to 3. Nothing that the world writes is unknown; text of a user's own may be."""

_ROLES = ("system", "user", "assistant")
_QUESTION = (":", ".", "with", "end", "at", "most", "words")
_CONTEXTS = ("focus", "on", "everything", "score")

CHAT_TEMPLATE = (
  "{%- for message in messages %}"
  "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
  "{%- endfor %}"
  "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def vocabulary(domain: str = "text", dimensions: Sequence[str] = DIMENSIONS) -> tuple[str, ...]:
  """All tokens in the order of their ids: the special ones, then the words in alphabetical order.

  Args:
    domain: of the questions.
    dimensions: that instructions may name.
  """
  words = {*RESPONSE_WORDS[domain], *DOMAINS[domain].items, *DOMAINS[domain].operations}
  words |= {*LAYOUTS, *_ROLES, *_QUESTION, *_CONTEXTS, *string.digits}
  words.update(*(name.split("_") for name in dimensions))
  return (*SPECIAL_TOKENS, *sorted(words))


def make_tokenizer(domain: str = "text", dimensions: Sequence[str] = DIMENSIONS) -> PreTrainedTokenizerFast:
  """The tokenizer of a `vocabulary`, every time the same; `save_pretrained` writes what `AutoTokenizer` loads."""
  ids = {token: number for number, token in enumerate(vocabulary(domain, dimensions))}
  backend = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
  backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  return PreTrainedTokenizerFast(
    tokenizer_object=backend,
    pad_token=PAD,
    unk_token=UNKNOWN,
    eos_token=TURN_END,
    additional_special_tokens=[TURN_START],
    chat_template=CHAT_TEMPLATE,
    clean_up_tokenization_spaces=False,
  )
