"""What looks like a secret is masked where it is shown, and what only sounds like one is not."""

import pytest

from isthmus.cli.masks import MASK, masked_arguments, masked_object, masked_text, masked_variable


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--proxy-password=s"], [f"--proxy-password={MASK}"]),
        (["--proxy-password", "s", "--seed=4"], ["--proxy-password", MASK, "--seed=4"]),
        (["--my_api_key", "s"], ["--my_api_key", MASK]),
        (["--use-auth-token", "--seed=4"], ["--use-auth-token", "--seed=4"]),
        (["--max-num-batched-tokens=8192"], ["--max-num-batched-tokens=8192"]),
        (["--tokenizer", "/models/t"], ["--tokenizer", "/models/t"]),
    ],
)
def test_arguments(arguments: list[str], shown: list[str]) -> None:
    assert list(masked_arguments(arguments)) == shown
    assert masked_object({"args": arguments}) == {"args": shown}


def test_variables() -> None:
    assert masked_variable("HF_TOKEN", "s") == MASK
    assert masked_variable("TOKENIZERS_PARALLELISM", "false") == "false"
    assert masked_object([{"name": "DB_PASSWORD", "value": "s"}]) == [
        {"name": "DB_PASSWORD", "value": MASK}
    ]


def test_what_a_set_up_text_assigns() -> None:
    text = 'module load a\nexport HF_TOKEN=s WANDB_API_KEY=\'s s\'; B="b" DB_PASSWORD="s\\" s"\n'
    shown = (
        f'module load a\nexport HF_TOKEN={MASK} WANDB_API_KEY={MASK}; B="b" DB_PASSWORD={MASK}\n'
    )
    assert masked_text(text) == shown
