"""A long text is read as far as its limit reaches, with the same tokens as read whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers import M3Encoder
from m3_retrievers.encoder import beginnings
from m3_retrievers.encoder.heads import HeadSpec
from m3_retrievers.encoder.pieces import tokenize
from m3_retrievers.errors import TextTooLongError, TruncationWarning
from sentences import SENTENCES

NONE = HeadSpec(sparse=False, colbert=False)


@pytest.fixture(scope="module")
def tokenizers(tiny_m3, tiny_bert):
    folders = tiny_m3, tiny_bert
    return [M3Encoder.from_pretrained(folder, heads=NONE).tokenizer for folder in folders]


# words, white space of every kind, scripts without spaces, combining marks, special tokens,
# characters that the tokenizers rewrite, drop, or take together with what follows
ODD = [
    " ", "  ", "\n", "\t", "\r\n", "\x0b", "\x1c", "\x85", "\u00a0", "\u2028", "\u3000", "\u200b",
    "\ufeff", "\x00", "\ud800", "e\u0301", "\u0301", "ﬁ", "㎏", "½", "ＡＢＭ", "！", "İ", "ΣΑΣ",
    "<mask>", " <mask>", "<s>", "</s>", "[MASK]", "[SEP]", "<unk>", "▁", "##ing", "don't", "a.b",
    "\u0600", "\u0605", "\u06dd", "\u0d4e", "\U000110bd", "\u200d", "👩\u200d🚀", "🇩🇪", "नमस्ते",
    "河水", "。", "สวัสดี", "x" * 150, "https://example.org/a?b=c", "1,000.50",
]  # fmt: skip
PARTS = st.sampled_from([*ODD, *ODD, *SENTENCES, *" ".join(SENTENCES).split()])


@given(st.lists(PARTS, max_size=60), st.integers(1, 40), st.integers(1, 60), st.booleans())
def test_the_first_tokens_are_those_of_the_whole_text(tokenizers, parts, enough, size, spans):
    text = "".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beginnings, "first_size", lambda _enough: size)
        for tokenizer in tokenizers:
            [whole] = tokenize(tokenizer, [text], spans=spans)
            [read] = tokenize(tokenizer, [text], spans=spans, enough=enough)
            assert (len(read.ids) > enough) == (len(whole.ids) > enough)
            count = len(read.ids)
            assert read.whole or count > enough
            np.testing.assert_array_equal(read.ids, whole.ids[:count])
            if spans:
                np.testing.assert_array_equal(read.spans, whole.spans[:count])
                assert read.surfaces == whole.surfaces[:count]
            if read.whole:
                assert count == len(whole.ids)


@given(st.text(max_size=300), st.integers(1, 20), st.integers(1, 30))
def test_so_they_are_for_any_characters(tokenizers, text, enough, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beginnings, "first_size", lambda _enough: size)
        for tokenizer in tokenizers:
            [whole] = tokenize(tokenizer, [text])
            [read] = tokenize(tokenizer, [text], enough=enough)
            np.testing.assert_array_equal(read.ids, whole.ids[: len(read.ids)])
            assert len(read.ids) > enough or len(read.ids) == len(whole.ids)


class Counting:
    """A tokenizer that counts the characters it reads."""

    def __init__(self, tokenizer):
        self._backend = tokenizer.backend_tokenizer
        self.read = 0

    @property
    def backend_tokenizer(self):
        return self

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def encode_batch_fast(self, texts, **options):
        self.read += sum(map(len, texts))
        return self._backend.encode_batch_fast(texts, **options)


def test_of_eleven_megabytes_a_few_thousand_characters_are_read(tokenizers):
    text = "river bridge page " * 620_000
    for tokenizer in tokenizers:
        counting = Counting(tokenizer)
        [long, short] = tokenize(counting, [text, "page"], enough=510)
        assert counting.read < 10_000
        assert (long.whole, short.whole) == (False, True)
        assert len(long.ids) > 510


def test_white_space_alone_is_read_to_its_end(tokenizers):
    for tokenizer in tokenizers:
        [one] = tokenize(tokenizer, [" \n" * 20_000 + "page"], enough=20)
        [word] = tokenize(tokenizer, ["page"])
        assert one.ids.tolist() == word.ids.tolist()


def test_two_hundred_thousand_characters_without_white_space_go_through(tokenizers):
    for tokenizer in tokenizers:
        for text in ("x" * 200_000, "图书管理员很快找到了那一页。" * 14_000):
            [one] = tokenize(tokenizer, [text], enough=510)
            assert one.whole


def test_a_tokenizer_that_reads_across_white_space_reads_the_whole_text():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    whole = Tokenizer(models.Unigram([("<unk>", 0.0), ("a b", -1.0), ("a", -2.0)], unk_id=0))
    assert not beginnings.splits_at_white_space(whole)
    split = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert beginnings.splits_at_white_space(split)
    split.add_tokens(["two words"])
    assert not beginnings.splits_at_white_space(split)
    joined = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    joined.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    joined.normalizer = normalizers.Replace("\n", "")
    assert not beginnings.splits_at_white_space(joined)


def test_counts_say_that_the_rest_was_not_counted(tiny_m3):
    text = "river bridge page " * 20_000
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", document_max_length=64)
    with pytest.warns(TruncationWarning, match=r"\(the longest has at least \d+\)"):
        found = encoder.encode_documents([text])
    assert found.colbert.lengths.tolist() == [63]
    strict = M3Encoder.from_pretrained(
        tiny_m3, device="cpu", document_max_length=64, truncation="error"
    )
    with pytest.raises(TextTooLongError, match=r"at most 62 tokens, got at least \d+ at position"):
        strict.encode_documents([text])


def test_windows_still_hold_every_token(tiny_m3):
    text = "river bridge page " * 2_000
    encoder = M3Encoder.from_pretrained(
        tiny_m3, device="cpu", document_max_length=512, truncation="windows"
    )
    [tokens] = tokenize(encoder.tokenizer, [text])
    found = encoder.encode_documents([text], outputs=("tokens",))
    assert [token.id for token in found.tokens[0]] == tokens.ids.tolist()
