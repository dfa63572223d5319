"""Tokenizers: words in any script, bigrams where there are no spaces, the encoder's own."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from m3_retrievers.errors import InputError
from m3_retrievers.lexical.tokenizers import (
    ENGLISH_STOP_WORDS,
    BigramTokenizer,
    SubwordTokenizer,
    WordTokenizer,
    from_state,
)


@pytest.fixture
def subword() -> PreTrainedTokenizerFast:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "hello": 3, "world": 4, "\ufffd": 5}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=4,
    )


@given(st.text(alphabet=st.characters(max_codepoint=0x7F)))
def test_ascii_words_are_those_of_the_common_pattern(text):
    assert WordTokenizer()(text) == re.findall(r"\b\w\w+\b", text.lower())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog, an OX: x_1 y", ["dog", "an", "ox", "x_1"]),
        ("Groß GROSS", ["gross", "gross"]),
        ("हिन्दी में लिखा", ["हिन्दी", "में", "लिखा"]),
        ("தமிழ் מִלָּה العَرَبِيَّة", ["தமிழ்", "מִלָּה", "العَرَبِيَّة"]),
        ("cafe\u0301", ["caf\u00e9"]),  # a letter typed in two parts is the letter
        ("ＢＭ２５", ["bm25"]),
        ("\ud800ab\udfff\x00cd", ["ab", "cd"]),
        ("", []),
        ("! ?", []),
    ],
)
def test_words(text, words):
    assert WordTokenizer()(text) == words


def test_stop_words_are_left_out_whatever_their_case():
    assert len(ENGLISH_STOP_WORDS) == 33
    assert WordTokenizer("en")("The cat IS on the Mat") == ["cat", "mat"]
    assert WordTokenizer(["CAT"])("The cat") == ["the"]
    assert WordTokenizer()("The cat") == ["the", "cat"]


@pytest.mark.parametrize("stop_words", ["de", "the", 5, [1]])
def test_a_stop_list_that_is_none_is_refused(stop_words):
    with pytest.raises(InputError, match="stop_words expects None, 'en' or a collection"):
        WordTokenizer(stop_words)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("日本語", ["日本", "本語"]),
        ("水", ["水"]),
        ("水、火", ["水", "火"]),
        ("カメラで撮る", ["カメ", "メラ", "ラで", "で撮", "撮る"]),
        ("ｶﾒﾗ", ["カメ", "メラ"]),
        ("𠀀𠀁𠀂", ["𠀀𠀁", "𠀁𠀂"]),
        ("GPT模型2024年", ["gpt", "模型", "2024", "年"]),
        ("ไทย ๑๒๓", ["ไท", "ทย", "๑๒๓"]),
        ("ລາວ ខ្មែរ မြန်", ["ລາ", "າວ", "ខ្", "្ម", "មែ", "ែរ", "မြ", "ြန", "န်"]),
        ("plain words, a b", ["plain", "words"]),
        ("한국어 문장", ["한국어", "문장"]),  # Korean is written with spaces
        ("", []),
    ],
)
def test_bigrams(text, terms):
    assert BigramTokenizer()(text) == terms


@given(st.text(alphabet=st.sampled_from("ab1 ,é-_хй")))
def test_bigrams_leave_spaced_scripts_to_the_words(text):
    assert BigramTokenizer()(text) == WordTokenizer()(text)


def test_subwords_are_the_vocabulary_s_tokens_without_special_ones(subword):
    assert SubwordTokenizer(subword)("hello world hello") == ["hello", "world", "hello"]
    assert SubwordTokenizer(subword)("hello 42 </s>") == ["hello"]
    assert SubwordTokenizer(subword)("") == []


def test_a_text_over_the_model_s_limit_is_read_whole_and_quietly(subword, caplog, capsys):
    assert SubwordTokenizer(subword)("hello " * 50) == ["hello"] * 50
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


def test_a_lone_surrogate_becomes_the_replacement_character(subword):
    assert SubwordTokenizer(subword)("hello \ud83d world") == ["hello", "\ufffd", "world"]


def test_states_rebuild_their_tokenizers(subword):
    text = "The naïve fox of 日本語 hello"
    for tokenizer in (
        WordTokenizer(),
        WordTokenizer("en"),
        WordTokenizer({"fox", "of"}),
        BigramTokenizer(),
        SubwordTokenizer(subword),
    ):
        state = json.loads(json.dumps(tokenizer.state()))
        assert from_state(state, subword=subword)(text) == tokenizer(text)


def test_a_state_that_cannot_be_rebuilt_says_why():
    with pytest.raises(InputError, match=r"subword=encoder\.tokenizer"):
        from_state({"kind": "subword"})
    with pytest.raises(InputError, match="got 'stemmer'"):
        from_state({"kind": "stemmer"})
