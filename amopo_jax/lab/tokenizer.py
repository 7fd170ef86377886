"""A word-level tokenizer over the closed vocabulary of the world, in the Hugging Face format with ChatML.

White space separates words and is otherwise not encoded, so decoding gives the world's text back exactly.
"""

import string
from types import MappingProxyType

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from amopo_jax.lab.domains import DOMAINS
from amopo_jax.lab.graders import dimensions_of
from amopo_jax.lab.responders import RESPONSE_WORDS
from amopo_jax.lab.spec import DEFAULT_SPEC, WorldSpec
from amopo_jax.lab.tasks import LAYOUTS, MIND

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


def vocabulary(spec: WorldSpec = DEFAULT_SPEC) -> tuple[str, ...]:
  """All tokens of a world in the order of their ids: the special ones, then the words in alphabetical order."""
  domain = DOMAINS[spec.domain]
  words = {*RESPONSE_WORDS[spec.domain], *domain.items, *domain.operations, *LAYOUTS}
  words |= {*_ROLES, *_QUESTION, *_CONTEXTS, *string.digits, *((MIND,) if spec.turns > 1 else ())}
  words.update(*(name.split("_") for name in dimensions_of(spec)))
  return (*SPECIAL_TOKENS, *sorted(words))


def make_tokenizer(spec: WorldSpec = DEFAULT_SPEC) -> PreTrainedTokenizerFast:
  """The tokenizer of a world, every time the same; `save_pretrained` writes what `AutoTokenizer` loads."""
  ids = {token: number for number, token in enumerate(vocabulary(spec))}
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
