"""Tokenizers: words in any script, bigrams where there are no spaces, the encoder's own."""

from __future__ import annotations

import copy
import json
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from m3_retrievers import checks
from m3_retrievers.errors import InputError, MissingExtraError
from m3_retrievers.lexical.tokenizers import (
    ENGLISH_STOP_WORDS,
    SpanTokenizer,
    SubwordTokenizer,
    WordTokenizer,
    as_tokenizer,
    from_state,
)

# A spelling of each kind: joined by NFKC, grown or shrunk by it, without spaces, broken.
any_text = st.text(
    st.one_of(
        st.characters(exclude_categories=()),
        st.sampled_from("ab éßﬁ㍿ｶﾞﾡￂ½水京ไทห\u0301\u1161\u11a8\u1112\u093f\ud83d\u200d"),
    )
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
        ("हिन्दी में水 العَرَبِيَّة", ["हिन्दी", "में", "水", "العَرَبِيَّة"]),
        ("", []),
    ],
)
def test_scripts_without_spaces_give_pairs_and_the_others_words(text, terms):
    assert WordTokenizer()(text) == terms


@given(st.text(alphabet=st.sampled_from("ab1 ,é-_хйह\u093f")))
def test_pairs_leave_spaced_scripts_to_the_words(text):
    assert WordTokenizer()(text) == WordTokenizer(bigrams=False)(text)


def test_pairs_can_be_left_out():
    assert WordTokenizer(bigrams=False)("日本語 text") == ["日本語", "text"]


@given(any_text, st.sampled_from([None, "german"]), st.booleans())
def test_spans_are_the_terms_in_order_with_the_characters_they_come_from(text, language, bigrams):
    tokenizer = WordTokenizer("en", language=language, bigrams=bigrams)
    spans = tokenizer.spans(text)
    assert [term for term, _, _ in spans] == tokenizer(text)
    assert all(0 <= start < end <= len(text) for _, start, end in spans)
    assert [start for _, start, _ in spans] == sorted(start for _, start, _ in spans)
    alike = WordTokenizer("en", language=language, bigrams=False)
    for term, start, end in alike.spans(text):
        assert term in alike(text[start:end])


def test_spans_point_at_the_spelling_of_the_text():
    text = "Die HÄUSER, cafe\u0301, 東京タワー"
    spans = WordTokenizer(["die"], language="de").spans(text)
    assert [(term, text[start:end]) for term, start, end in spans] == [
        ("haus", "HÄUSER"),
        ("café", "cafe\u0301"),
        ("東京", "東京"),
        ("京タ", "京タ"),
        ("タワ", "タワ"),
        ("ワー", "ワー"),
    ]
    assert isinstance(WordTokenizer(), SpanTokenizer)
    assert not isinstance(str.split, SpanTokenizer)


# Stems


@pytest.mark.parametrize(
    ("language", "forms"),
    [
        ("english", "cycling cycles cycled"),
        ("german", "Häuser Haus Hauses"),
        ("de", "Bücher Buch"),
        ("French", "continuait continuer"),
        ("russian", "книги книга"),
        ("greek", "οδός οδούς"),
        ("hindi", "लड़कियों लड़की"),
        ("arabic", "الكتاب كتاب"),
    ],
)
def test_forms_of_a_word_have_one_stem(language, forms):
    assert len(set(WordTokenizer(language=language)(forms))) == 1


def test_stop_words_are_left_out_as_they_are_written_before_stems_are_made():
    assert WordTokenizer(["Häuser"], language="german")("Häuser Haus 東京都") == [
        "haus",
        "東京",
        "京都",
    ]


def test_a_language_without_a_stemmer_is_named_with_those_that_have_one():
    with pytest.raises(InputError, match=r"french.*got 'germn'\. Did you mean 'german'"):
        WordTokenizer(language="germn")
    with pytest.raises(InputError, match="got 7"):
        WordTokenizer(language=7)


def test_without_the_stemmers_the_command_is_named(monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"PyStemmer.*m3-retrievers\[stemming\]"):
        WordTokenizer(language="german")
    with pytest.raises(MissingExtraError):
        from_state({"kind": "word", "stop_words": [], "language": "german", "bigrams": True})
    assert WordTokenizer()("Häuser") == ["häuser"]


def test_a_stemming_tokenizer_is_shared_by_threads_and_copied():
    tokenizer = WordTokenizer(language="german")
    text = "Häuser und Bücher liegen am Hafen " * 20
    expected = tokenizer(text)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == expected for found in pool.map(tokenizer, [text] * 40))
    assert copy.deepcopy(tokenizer)(text) == expected
    assert pickle.loads(pickle.dumps(tokenizer))(text) == expected


# Short names


def test_short_names_stand_for_tokenizers(subword):
    assert as_tokenizer().state() == WordTokenizer().state()
    assert as_tokenizer("word").state() == as_tokenizer("bigram").state() == WordTokenizer().state()
    assert as_tokenizer("german").state() == WordTokenizer(language="german").state()
    assert as_tokenizer(subword)("hello there world") == ["hello", "world"]
    for own in (WordTokenizer("en"), SubwordTokenizer(subword), str.split):
        assert as_tokenizer(own) is own


@pytest.mark.parametrize("value", ["wrod", 5, ["word"], "", WordTokenizer, SubwordTokenizer])
def test_what_is_no_tokenizer_is_refused(value):
    with pytest.raises(InputError, match=r"expects.*'word'.*got"):
        as_tokenizer(value)


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
        WordTokenizer(language="german"),
        WordTokenizer("en", language="de", bigrams=False),
        SubwordTokenizer(subword),
    ):
        state = json.loads(json.dumps(tokenizer.state()))
        assert from_state(state, subword=subword)(text) == tokenizer(text)


@pytest.mark.parametrize(
    ("state", "terms"),
    [
        ({"kind": "word", "stop_words": "en"}, ["fox", "日本語", "水火"]),
        ({"kind": "word", "stop_words": []}, ["the", "fox", "日本語", "水火"]),
        ({"kind": "bigram"}, ["the", "fox", "日本", "本語", "水火"]),
    ],
)
def test_states_of_the_first_version_split_as_they_did(state, terms):
    assert from_state(state)("The fox 日本語 水火") == terms


def test_a_state_that_cannot_be_rebuilt_says_why():
    with pytest.raises(InputError, match=r"subword=encoder\.tokenizer"):
        from_state({"kind": "subword"})
    with pytest.raises(InputError, match="got 'stemmer'"):
        from_state({"kind": "stemmer"})
