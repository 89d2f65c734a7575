"""What the tests of leia_eval are fed: generated items, and a tiny random Llama with a tokenizer trained here."""

import json
import random
from pathlib import Path

SYLLABLES = [a + b for a in "kstnmr" for b in "aeiou"]
JAPANESE = "東京日本海山川学校先生電車花火"


def make_items(n: int, *, seed: int = 0, lang: str = "ja", equal_length: bool = False, choices: int = 5) -> list[dict]:
    """Generated items; answers uniform over the choices, which have equal length in characters where asked."""
    draw = random.Random(seed)

    def word(syllables: int) -> str:
        return "".join(draw.choice(SYLLABLES) for _ in range(syllables))

    items = []
    for i in range(n):
        labels = list("ABCDEFGH")[:choices]
        texts = [word(2 if equal_length else draw.randint(1, 5)) for _ in labels]
        if not equal_length and i % 3 == 0:
            texts[0] = "".join(draw.choice(JAPANESE) for _ in range(3))
        stem = f"{word(2)} {''.join(draw.choice(JAPANESE) for _ in range(4))} {word(3)} {i}?"
        items.append({
            "id": f"item-{i:04d}", "lang": lang, "cluster": f"item-{i:04d}",
            "question": {"stem": stem, "choices": {"label": labels, "text": texts}},
            "answerKey": draw.choice(labels),
        })  # fmt: skip
    return items


def write_items(path: Path, items: list[dict]) -> Path:
    """`items` as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return path


def save_tiny_model(folder: Path, *, seed: int, max_length: int = 512, scale: float = 0.3) -> Path:
    """A two-layer Llama with random weights of size `scale` and a byte-level BPE, in Hugging Face form."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(byte_fallback=False))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator((f"Question: {item['question']['stem']}\nAnswer:" for item in make_items(200)), trainer)
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=raw.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=max_length, initializer_range=scale,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
