"""From a checkpoint's tokenizer to the token ids of requests, known and measured before gigabytes of weights are read.

The tokenizer is the checkpoint's tokenizer.json as the `tokenizers` library reads it: AutoTokenizer of transformers 5
swaps the backend and, for a Llama with Mistral's tokenizer, ids (`" x</s>y"`).
"""

from pathlib import Path

import transformers
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import configure_pad_token, resolve_max_length
from transformers import PretrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from leia_beam.errors import UsageError
from leia_eval import reference
from leia_eval.checkpoints import one_line, refuse_remote_code


class RequestEncoder(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """The tokenizing half of HFLM, without weights: the same token ids as the model will be given."""

    def __init__(
        self,
        folder: Path,
        config: PretrainedConfig,
        tokenizer: PreTrainedTokenizerFast,
        profile: str = "standard",
        backend: str = "hf",
    ):
        LM.__init__(self)  # not HFLM's own, which loads the model
        self.folder = folder
        self.profile = profile
        self.backend = backend
        self._config = config
        self.tokenizer = configure_pad_token(tokenizer, model_config=config)
        self.add_bos_token = None
        self.custom_prefix_token_id = None

    @property
    def max_length(self) -> int:
        """The longest input in tokens."""
        return int(resolve_max_length(self._config, self.tokenizer))

    @property
    def vocabulary_size(self) -> int:
        """The number of rows of the embedding."""
        return int(self._config.get_text_config().vocab_size)

    @property
    def longest_pair(self) -> int:
        """The most tokens that context and continuation may have together; the last one is only predicted.

        lm-eval's wrapper of vLLM, which makes a token after them, cuts at two tokens less.
        """
        return self.max_length - 1 if self.backend == "vllm" else self.max_length + 1

    def encode_plain(self, text: str) -> list[int]:
        """Token ids without any special token."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of a request: split where lm-eval splits them, or as the reference encodes them."""
        if self.profile == "reference":
            return reference.encode_pair(self.encode_plain, self.tokenizer.eos_token_id, context, continuation)
        if context == "":
            ids = self.encode_plain(continuation)
            start = self.prefix_token_id
            return (ids[:1], ids[1:]) if ids and ids[0] == start else ([start], ids)
        context_ids, continuation_ids = self._encode_pair(context, continuation)
        return context_ids, continuation_ids

    def encode_prompt(self, context: str) -> list[int]:
        """Token ids of a prompt that the model goes on from."""
        return self.encode_plain(context) if self.profile == "reference" else list(self.tok_encode(context))


def load_encoder(folder: Path, profile: str = "standard", backend: str = "hf") -> RequestEncoder:
    """Configuration and tokenizer of the checkpoint.

    Raises: UsageError where they cannot be read, need remote code, or give nothing to begin a text with.
    """
    refuse_remote_code(folder)
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        reason = one_line(error)
        raise UsageError(f"cannot read the configuration or tokenizer of --model {folder}: {reason}") from error
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UsageError(f"--model {folder} is a '{config.model_type}', which is no causal language model")
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise UsageError(
            f"the tokenizer of --model {folder} names neither bos_token nor eos_token in "
            "tokenizer_config.json; lm-eval needs one of them"
        )
    if profile == "reference" and tokenizer.eos_token_id is None:
        raise UsageError(
            f"the tokenizer of --model {folder} names no eos_token, which the reference profile begins with"
        )
    return RequestEncoder(folder, config, tokenizer, profile, backend)
