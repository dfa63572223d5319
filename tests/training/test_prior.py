"""The prior's weights are BM25's, counted by hand; its loss is a share of their size."""

import math

import pytest
import torch

from m3_retrievers.training.prior import LexicalPrior
from m3_retrievers.training.similarity import Terms


class Words:
    """A tokenizer of known words, as far as ``tokenize`` needs one."""

    vocabulary = ("the", "river", "moon", "bread")

    @property
    def backend_tokenizer(self):
        return self

    def encode_batch_fast(self, texts, add_special_tokens):
        ids = [[self.vocabulary.index(word) for word in text.split()] for text in texts]
        return [type("Encoded", (), {"ids": one})() for one in ids]


TEXTS = ["the river the", "the moon", "the bread", "the moon river"]


def by_hand(text: str, word: str) -> float:
    words = text.split()
    holding = sum(word in one.split() for one in TEXTS)
    idf = math.log(1 + (len(TEXTS) - holding + 0.5) / (holding + 0.5))
    count = words.count(word)
    return idf * count * 1.8 / (count + 0.8 * (0.25 + 0.75 * len(words) / 100))


def terms_of(text: str) -> Terms:
    ids = torch.tensor([Words.vocabulary.index(word) for word in text.split()])
    return Terms(torch.zeros(len(ids)), ids, torch.zeros(len(ids), dtype=torch.long))


def test_weights_are_bm25s_up_to_one_scale():
    prior = LexicalPrior.of(TEXTS, Words(), vocabulary_size=4)
    scales = [
        float(weight) / by_hand(text, word)
        for text in TEXTS
        for weight, word in zip(prior.targets(terms_of(text)), text.split(), strict=True)
    ]
    assert scales == pytest.approx([scales[0]] * len(scales), rel=1e-5)


def test_a_text_scores_about_one_with_itself():
    texts = [f"the {word}" for word in ("river", "moon", "bread")]
    prior = LexicalPrior.of(texts, Words(), vocabulary_size=4)
    scores = [float(prior.targets(terms_of(text)).square().sum()) for text in texts]
    assert sum(scores) / len(scores) == pytest.approx(1.0, abs=0.05)


def test_the_loss_is_nothing_at_the_prior_and_one_at_zero():
    prior = LexicalPrior.of(TEXTS, Words(), vocabulary_size=4)
    terms = terms_of(TEXTS[0])
    assert float(prior.loss(terms)) == pytest.approx(1.0)
    exact = Terms(prior.targets(terms), terms.ids, terms.rows)
    assert float(prior.loss(exact)) == 0.0


def test_a_repeated_term_weighs_more_and_a_common_one_less():
    prior = LexicalPrior.of(TEXTS, Words(), vocabulary_size=4)
    once, twice = (prior.targets(terms_of(text)) for text in ("river moon", "river moon river"))
    assert twice[0] > once[0]
    assert prior.idf[0] < prior.idf[1] < prior.idf[3]
