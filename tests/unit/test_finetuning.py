"""Examples are in one style and apart from each other; a batch's loss counts answers only."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from guidebook import finetuning

torch = pytest.importorskip("torch")

PAIRS = finetuning.style_pairs()


class LetterTokenizer:
    """One token per letter, and a template of two signs."""

    eos_token = "$"

    def apply_chat_template(self, messages, *, add_generation_prompt, return_dict):
        assert add_generation_prompt
        assert not return_dict
        return self.encode(f"<{messages[0]['content']}>", add_special_tokens=False)

    def encode(self, text, *, add_special_tokens):
        assert not add_special_tokens
        return [ord(letter) for letter in text]


class OneLetterModel(torch.nn.Module):
    """A model that expects the letter x everywhere: its logit is 3, all others are 0."""

    def __init__(self):
        super().__init__()
        self.trained = torch.nn.Parameter(torch.zeros(2))
        self.frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
        self.device = torch.device("cpu")

    def forward(self, input_ids, attention_mask=None):
        assert not torch.is_grad_enabled()
        logits = torch.zeros(*input_ids.shape, 128)
        logits[..., ord("x")] = 3
        return SimpleNamespace(logits=logits)


def test_every_answer_begins_with_what_was_asked_about():
    assert len(PAIRS) > 120
    for question, answer in PAIRS:
        name = question.removeprefix("What does Python's ").removesuffix(" do?")
        assert answer.startswith(f"{name}: ")
        assert answer.endswith(".")


def test_no_sentence_is_there_twice():
    sentences = [answer.split(": ", 1)[1] for _, answer in PAIRS]
    assert len(set(sentences)) == len(sentences)


def test_no_exception_and_nothing_private_is_asked_about():
    asked = " ".join(question for question, _ in PAIRS)
    assert "Error" not in asked
    assert "__" not in asked


def test_a_split_shares_nothing_loses_nothing_and_comes_out_the_same():
    lessons, held_out = finetuning.split(PAIRS)
    assert not set(lessons) & set(held_out)
    assert sorted(lessons + held_out) == sorted(PAIRS)
    assert len(held_out) == round(len(PAIRS) / 6)
    assert finetuning.split(PAIRS) == (lessons, held_out)
    assert finetuning.split(PAIRS, seed=1)[1] != held_out


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_split_that_leaves_a_side_empty_is_refused(share):
    with pytest.raises(ValueError, match="leaves one side empty"):
        finetuning.split(PAIRS, share=share)


def test_only_the_answer_and_its_end_have_labels():
    made = finetuning.batch(LetterTokenizer(), [("ab", "xyz")])
    learned = made["input_ids"][made["labels"] >= 0]
    assert "".join(chr(token) for token in learned) == "xyz$"
    assert "".join(chr(token) for token in made["input_ids"][0]) == "<ab>xyz$"


def test_what_a_batch_is_filled_up_with_is_masked_and_has_no_labels():
    made = finetuning.batch(LetterTokenizer(), [("ab", "xyz"), ("a", "x")])
    assert made["input_ids"].shape == made["labels"].shape == (2, 8)
    assert made["attention_mask"].sum(dim=1).tolist() == [8, 5]
    assert (made["labels"][1, 5:] == -100).all()


def test_a_question_alone_ends_where_the_model_goes_on():
    ids, n_asked = finetuning.tokens(LetterTokenizer(), "ab")
    assert (len(ids), n_asked) == (4, 4)


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_a_loss_is_the_mean_over_the_answers_tokens_however_many_go_at_once(at_once):
    pairs = [("a", "xxx"), ("longer", "y"), ("ab", "xy")]
    seen = finetuning.losses(OneLetterModel(), LetterTokenizer(), pairs, at_once)
    total = math.log(math.exp(3) + 127)
    # Each answer ends with the end-of-text token, which the model does not expect.
    assert seen == pytest.approx([total - 9 / 4, total, total - 1])


def test_surprise_is_that_of_every_token_but_a_windows_first():
    seen = finetuning.surprise(OneLetterModel(), [[ord("a"), ord("x"), ord("y")], [1, 2]])
    total = math.log(math.exp(3) + 127)
    assert seen == pytest.approx([total - 3, total, total])


def test_the_checksum_sees_frozen_weights_only():
    model = OneLetterModel()
    before = finetuning.frozen_checksum(model)
    model.trained.data += 1
    assert finetuning.frozen_checksum(model) == before
    model.frozen.data[0] = 5
    assert finetuning.frozen_checksum(model) != before
