"""A model that is served for real and knows nothing: two layers, a vocabulary of 512 words.

Its weights are made up by the engine (`--load-format dummy`), so three small files are all of it.
Each word is one token, so a test says how many tokens a prompt has by counting its words.
"""

import json
from pathlib import Path

VOCABULARY = 512
CONTEXT = 32_768
SPECIAL = ("<s>", "</s>", "<unk>", "<user>", "<assistant>")
WORDS = tuple(f"w{number}" for number in range(VOCABULARY - len(SPECIAL)))
TEMPLATE = (
    "{% for message in messages %}<user> {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write(folder: Path) -> None:
    """Write the model into a folder, readable by everybody."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    files = {
        "config.json": _config(),
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1},
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": _tokenizer_config(),
    }
    for name, content in files.items():
        path = folder / name
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        path.chmod(0o644)


def prompt(tokens: int, *, first: int = 0) -> str:
    """Text of so many tokens; another `first` shares no prefix with it, so nothing is cached."""
    return " ".join(WORDS[(first + 7 * number) % len(WORDS)] for number in range(tokens))


def _config() -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def _tokenizer() -> dict[str, object]:
    special = [
        {
            "id": number,
            "content": word,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, word in enumerate(SPECIAL)
    ]
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
