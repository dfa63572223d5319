import asyncio
import warnings
from dataclasses import replace

import numpy as np
import pytest

from m3_retrievers import (
    HeadSpec,
    HybridRetriever,
    HybridWeights,
    LocalIndex,
    M3Encoder,
    Recall,
    ReciprocalRankFusion,
    WeightedSum,
)
from m3_retrievers.errors import (
    DuplicateIdError,
    FilterError,
    IndexModelError,
    InputError,
    LexicalFallbackWarning,
)
from m3_retrievers.index import search
from m3_retrievers.index.base import RecallsMany
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.scoring.modes import by_mode
from m3_retrievers.types.hits import Query, Record

DOCUMENTS = [
    "The river rose three metres overnight.",
    "The bridge was closed before dawn.",
    "A librarian finds the one page that matters.",
    "She repaired the old clock with patience.",
    "图书管理员很快找到了那一页。",
    "Hybrid retrieval adds a dense score and a lexical score.",
    "",
    "page page page",
]
QUERY = "the page that matters"


@pytest.fixture
def retriever(encoder):
    return filled(HybridRetriever(encoder))


def filled(retriever: HybridRetriever) -> HybridRetriever:
    ids = [f"d{number}" for number in range(len(DOCUMENTS))]
    retriever.add(DOCUMENTS, ids=ids, metadata=[{"even": n % 2 == 0} for n in range(len(ids))])
    return retriever


def exact(encoder) -> HybridRetriever:
    index = LocalIndex(colbert_dtype="float32")
    return filled(HybridRetriever(encoder, index, recall=Recall.everything()))


def test_a_full_scan_orders_all_documents_by_the_hybrid_score(encoder):
    hits = exact(encoder).search(QUERY, k=8)
    query, documents = encoder.encode_queries([QUERY]), encoder.encode_documents(DOCUMENTS)
    modes = {mode: by_mode(mode, query, documents)[0] for mode in ("dense", "sparse", "colbert")}
    total = modes["dense"] + 0.3 * modes["sparse"] + modes["colbert"]
    assert [hit.id for hit in hits] == [f"d{row}" for row in np.argsort(-total, kind="stable")]
    for hit in hits:
        row = int(hit.id[1:])
        assert hit.score == pytest.approx(total[row], abs=1e-5)
        for mode, values in modes.items():
            assert hit.scores[mode] == pytest.approx(values[row], abs=1e-5)
            better, no_worse = values > values[row] + 1e-6, values > values[row] - 1e-6
            assert 1 + better.sum() <= hit.ranks[mode] <= no_worse.sum()


def test_contributions_add_up_to_the_score_and_ranks_to_the_order(retriever):
    hits = retriever.search(QUERY, k=8)
    for place, hit in enumerate(hits, start=1):
        assert sum(hit.contributions.values()) == pytest.approx(hit.score)
        assert hit.scores["hybrid"] == hit.score
        assert hit.ranks["hybrid"] == place
        assert hit.text == DOCUMENTS[int(hit.id[1:])]


def test_scores_a_leg_did_not_compute_are_completed_exactly(encoder):
    narrow = filled(HybridRetriever(encoder, recall=Recall(dense=1, lexical=1)))
    full = {hit.id: hit for hit in filled(HybridRetriever(encoder)).search(QUERY, k=8)}
    hits = narrow.search(QUERY, k=8)
    assert 1 <= len(hits) <= 2
    for hit in hits:
        assert dict(hit.scores) == pytest.approx(dict(full[hit.id].scores), abs=1e-6)


def test_colbert_that_is_not_kept_is_computed_again_for_the_candidates(encoder):
    lean = filled(HybridRetriever(encoder, LocalIndex(modes=("dense", "sparse"))))
    kept = exact(encoder)
    for left, right in zip(lean.search(QUERY, k=5), kept.search(QUERY, k=5), strict=True):
        assert left.id == right.id
        assert left.scores["colbert"] == pytest.approx(right.scores["colbert"], abs=1e-5)


def test_a_filter_holds_in_every_leg(retriever):
    hits = retriever.search(QUERY, k=8, filter={"even": True})
    assert {hit.id for hit in hits} == {"d0", "d2", "d4", "d6"}
    assert all(hit.metadata == {"even": True} for hit in hits)
    with pytest.raises(FilterError):
        retriever.search(QUERY, filter={"even": {"$is": True}})


@pytest.mark.parametrize("k", [0, -3, 2.5, None, True])
def test_k_that_is_no_count_is_refused(retriever, k):
    with pytest.raises(InputError, match="k expects"):
        retriever.search(QUERY, k=k)


@pytest.mark.parametrize("query", [None, 3, ["page"]])
def test_a_query_that_is_no_text_is_refused(retriever, query):
    with pytest.raises(InputError, match="string"):
        retriever.search(query)


def test_an_empty_index_has_no_hits(encoder):
    assert HybridRetriever(encoder).search(QUERY) == []
    assert HybridRetriever(encoder).search_many([]) == []


def test_many_queries_at_once_give_the_hits_of_each(retriever):
    queries = [QUERY, "river", ""]
    together = retriever.search_many(queries, k=3)
    for query, hits in zip(queries, together, strict=True):
        alone = retriever.search(query, k=3)
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-5)


def test_many_queries_at_once_are_recalled_together(retriever, encoder, monkeypatch):
    queries = [f"{QUERY} {n}" for n in range(5)]
    asked = []
    recall_many = type(retriever.index).recall_many

    def counted(index, block, mode, **options):
        asked.append((mode, len(block)))
        return recall_many(index, block, mode, **options)

    monkeypatch.setattr(search, "MANY", 3)
    monkeypatch.setattr(type(retriever.index), "recall_many", counted)
    found = retriever.search_many(queries, k=4, filter={"even": True})
    assert asked == [("dense", 3), ("sparse", 3), ("dense", 2), ("sparse", 2)]
    encoded = encoder.encode_queries(queries)
    for row, hits in enumerate(found):
        assert hits == retriever.search(
            Query(queries[row], encoded[row]), k=4, filter={"even": True}
        )


def test_many_queries_ask_an_engine_one_by_one(encoder):
    class OneByOne(LocalIndex):
        recall_many = None

    retriever = filled(HybridRetriever(encoder, OneByOne()))
    assert not isinstance(retriever.index, RecallsMany)
    (query,) = encoder.encode_queries([QUERY])
    alone = retriever.search(Query(QUERY, query), k=3)
    assert retriever.search_many([QUERY], k=3) == [alone]


async def test_searches_awaited_together_agree_with_searches_alone(retriever):
    queries = [QUERY, "river", "bridge", "clock"] * 3
    found = await asyncio.gather(*(retriever.asearch(query, k=3) for query in queries))
    for query, hits in zip(queries, found, strict=True):
        assert [hit.id for hit in hits] == [hit.id for hit in retriever.search(query, k=3)]


# Documents in and out


def test_ids_are_made_up_where_none_are_given(encoder):
    retriever = HybridRetriever(encoder)
    ids = retriever.add(["one page", "two pages"])
    assert len(set(ids)) == 2
    assert [record.text for record in retriever.get(ids)] == ["one page", "two pages"]


@pytest.mark.parametrize("bad", [None, 3, b"bytes"])
def test_a_bad_text_in_a_list_stops_before_anything_is_added(encoder, bad):
    retriever = HybridRetriever(encoder)
    with pytest.raises(InputError, match="position 2"):
        retriever.add(["a", "b", bad], batch_size=1)
    assert len(retriever) == 0


def test_a_duplicate_id_stops_before_anything_is_added(retriever):
    with pytest.raises(DuplicateIdError, match="'new' twice"):
        retriever.add(["a", "b"], ids=["new", "new"], batch_size=1)
    with pytest.raises(DuplicateIdError, match=r"d3.*upsert"):
        retriever.add(["a", "b"], ids=["new", "d3"], batch_size=1)
    assert len(retriever) == len(DOCUMENTS)


@pytest.mark.parametrize("options", [{"ids": ["a"]}, {"metadata": [{}]}, {"ids": ["a", 3]}])
def test_ids_and_metadata_have_to_match_the_texts(encoder, options):
    retriever = HybridRetriever(encoder)
    with pytest.raises(InputError, match="expect"):
        retriever.add(["one", "two"], **options)
    assert len(retriever) == 0


def test_one_string_is_not_taken_for_a_list_of_ids(retriever):
    for call in (retriever.get, retriever.delete, retriever.vectors):
        with pytest.raises(InputError, match="a list of ids, got one string 'd0'"):
            call("d0")
    assert len(retriever) == len(DOCUMENTS)


def test_a_prepared_query_finds_what_its_text_finds(retriever):
    prepared = retriever.prepare(QUERY)
    assert retriever.search(prepared, k=4) == retriever.search(QUERY, k=4)


def test_vectors_are_stored_ones_or_made_again(retriever, encoder):
    ids, texts = ["d3", "d0"], [DOCUMENTS[3], DOCUMENTS[0]]
    expected = encoder.encode_documents(texts)
    stored = retriever.vectors(ids)
    assert stored.outputs == encoder.outputs
    assert stored.dense == pytest.approx(expected.dense, abs=1e-5)
    lean = filled(HybridRetriever(encoder, LocalIndex(modes=("dense", "sparse"))))
    assert lean.vectors(ids).outputs == ("dense", "sparse")
    colbert = lean.vectors(ids, outputs=("colbert",)).colbert
    assert colbert.vectors == pytest.approx(expected.colbert.vectors, abs=1e-5)
    with pytest.raises(InputError, match="ids of the index, got 'nobody'"):
        lean.vectors(["d0", "nobody"], outputs=("colbert",))


def test_upsert_replaces_and_delete_removes(retriever):
    retriever.upsert(["the page that matters"], ids=["d0"])
    assert retriever.get(["d0"])[0].text == "the page that matters"
    assert len(retriever) == len(DOCUMENTS)
    assert retriever.delete(["d0", "nobody"]) == ["d0"]
    assert "d0" not in {hit.id for hit in retriever.search(QUERY, k=8)}


def test_records_are_stored_as_their_parts_are(retriever, encoder):
    records = [replace(record, text=record.text + "!") for record in retriever.get(["d3", "d1"])]
    records.append(Record("new", "a new page", {"even": True}))
    assert retriever.upsert(iter(records), batch_size=2) == ["d3", "d1", "new"]
    assert retriever.get(["d3", "d1", "new"]) == records
    assert len(retriever) == len(DOCUMENTS) + 1
    with pytest.raises(DuplicateIdError, match="'new' twice"):
        HybridRetriever(encoder).upsert([records[-1], records[-1]], batch_size=1)
    with pytest.raises(InputError, match="leave ids= and metadata= out"):
        retriever.add(records[:1], ids=["a"])


def test_documents_are_scored_whether_they_were_recalled_or_not(encoder):
    everything = exact(encoder).search(QUERY, k=8)
    retriever = filled(HybridRetriever(encoder, recall=Recall(dense=1, lexical=1)))
    found = retriever.score(QUERY, ["d7", "d3", "d2"])
    wanted = [hit for hit in everything if hit.id in ("d7", "d3", "d2")]
    assert [hit.id for hit in found] == [hit.id for hit in wanted]
    assert [hit.score for hit in found] == pytest.approx([h.score for h in wanted], abs=2e-3)
    assert [hit.ranks["hybrid"] for hit in found] == [1, 2, 3]
    assert retriever.score(QUERY, []) == []
    with pytest.raises(InputError, match="ids of the index, got 'nobody'"):
        retriever.score(QUERY, ["d1", "nobody"])


def test_an_interruption_keeps_what_was_added_before_it(encoder):
    retriever = HybridRetriever(encoder)

    def corpus():
        yield from DOCUMENTS[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retriever.add(corpus(), ids=(f"d{n}" for n in range(99)), batch_size=2)
    assert retriever.index.ids == ("d0", "d1", "d2", "d3")
    assert retriever.search(QUERY, k=1)[0].id in retriever.index.ids


def test_a_generator_is_read_chunk_by_chunk(encoder):
    retriever, seen = HybridRetriever(encoder), []

    def corpus():
        for number in range(6):
            seen.append((number, len(retriever)))
            yield f"page {number}"

    retriever.add(corpus(), batch_size=2)
    assert seen == [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4), (5, 4)]


def test_the_bar_counts_documents_and_is_off_by_default(encoder, capsys):
    filled(HybridRetriever(encoder))
    assert capsys.readouterr().err == ""
    HybridRetriever(encoder).add(DOCUMENTS, show_progress=True)
    assert "8/8" in capsys.readouterr().err


# Legs, weights, fusion


@pytest.mark.parametrize("fusion", [ReciprocalRankFusion(), WeightedSum()])
def test_fusion_orders_by_the_legs_alone(encoder, fusion):
    retriever = filled(HybridRetriever(encoder, fusion=fusion))
    rankings = {leg: retriever.recall_leg(QUERY, leg) for leg in ("dense", "sparse")}
    fused = fusion(rankings)
    hits = retriever.search(QUERY, k=4)
    assert [hit.id for hit in hits] == list(fused.ids[:4])
    for place, hit in enumerate(hits):
        assert hit.score == hit.scores["fusion"] == fused.scores[place]
        assert "colbert" not in hit.scores
        for leg, ranking in rankings.items():
            if hit.id in ranking.ids:
                assert hit.ranks[leg] == 1 + ranking.ids.index(hit.id)


def test_bm25_enters_the_hybrid_score_as_its_share_of_what_the_query_could_reach(encoder):
    weights = HybridWeights(dense=0, sparse=1, colbert=0)
    retriever = filled(HybridRetriever(encoder, legs=("bm25",), weights=weights))
    hits = retriever.search("page", k=3)
    assert hits[0].id == "d7"
    scale = retriever.index.scale(retriever.prepare("page"), "bm25")
    for hit in hits:
        assert hit.score == pytest.approx(hit.scores["bm25"] * scale)
        assert 0 <= hit.score <= 1
    assert hits[0].scores["bm25"] > 1


def test_with_both_lexical_legs_m3s_counts_and_bm25_recalls(encoder):
    both = filled(HybridRetriever(encoder, legs=("dense", "sparse", "bm25")))
    plain = filled(HybridRetriever(encoder))
    hits = both.search(QUERY, k=8)
    scores = {hit.id: hit.score for hit in plain.search(QUERY, k=8)}
    assert {hit.id: hit.score for hit in hits} == pytest.approx(scores)
    assert "bm25" in hits[0].scores
    assert "bm25" not in hits[0].contributions


def test_a_model_without_a_sparse_head_takes_bm25_and_says_so():
    mini = M3Encoder.from_pretrained("m3-mini/backbone", device="cpu")
    with pytest.warns(LexicalFallbackWarning, match="BM25 serves as the lexical leg"):
        retriever = HybridRetriever(mini)
    assert retriever.legs == ("dense", "bm25")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HybridRetriever(mini, legs=("dense", "bm25"))


@pytest.mark.parametrize("legs", ["dense", [], ["dense", "dense"], ["colours"]])
def test_legs_that_do_not_exist_are_refused(encoder, legs):
    with pytest.raises(InputError, match="legs expects"):
        HybridRetriever(encoder, legs=legs)


def test_an_index_that_cannot_serve_a_leg_is_refused(encoder):
    with pytest.raises(InputError, match="sparse"):
        HybridRetriever(encoder, LocalIndex(modes=("dense",)))


@pytest.mark.parametrize("depth", [0, -1, 1.5, True])
def test_recall_depths_are_counts_or_none(depth):
    with pytest.raises(InputError, match="recall"):
        Recall(dense=depth)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1, "1", None])
def test_weights_that_are_no_weights_are_refused(weight):
    with pytest.raises(InputError, match="weight dense"):
        HybridWeights(dense=weight)


def test_weights_that_sum_to_nothing_are_refused():
    with pytest.raises(InputError, match="at least one weight above 0"):
        HybridWeights(dense=0, sparse=0, colbert=0)


# On disk


def test_a_saved_retriever_answers_as_before_with_its_own_settings(encoder, tmp_path):
    weights = HybridWeights(dense=0.2, sparse=0.5, colbert=0.3)
    before = filled(
        HybridRetriever(
            encoder, legs=("dense", "bm25"), recall=Recall(dense=3, lexical=None), weights=weights
        )
    )
    before.save(tmp_path / "index")
    after = HybridRetriever.load(tmp_path / "index", encoder)
    assert (after.legs, after.recall, after.weights) == (before.legs, before.recall, before.weights)
    assert after.search(QUERY) == before.search(QUERY)


def test_fusion_comes_back_too(encoder, tmp_path):
    fusion = WeightedSum(normalize="z_score", weights={"dense": 1.0, "sparse": 0.5})
    before = filled(HybridRetriever(encoder, fusion=fusion))
    before.save(tmp_path / "index")
    after = HybridRetriever.load(tmp_path / "index", encoder)
    assert after.fusion == fusion
    assert after.search(QUERY) == before.search(QUERY)
    lambda_fusion = filled(HybridRetriever(encoder, fusion=lambda rankings: rankings["dense"]))
    with pytest.raises(InputError, match="ReciprocalRankFusion"):
        lambda_fusion.save(tmp_path / "other")


def test_an_index_saved_by_another_model_is_refused(encoder, tiny_m3, tmp_path):
    filled(HybridRetriever(encoder)).save(tmp_path / "index")
    other = M3Encoder.from_pretrained(tiny_m3, device="cpu", truncate_dim=8)
    with pytest.raises(IndexModelError, match="was built by"):
        HybridRetriever.load(tmp_path / "index", other)
    same = M3Encoder.from_pretrained(tiny_m3, device="cpu", query_max_length=64)
    assert len(HybridRetriever.load(tmp_path / "index", same)) == len(DOCUMENTS)


def test_bm25_over_the_models_own_tokens_is_saved_and_loaded(encoder, tmp_path):
    from m3_retrievers.lexical.tokenizers import SubwordTokenizer

    index = LocalIndex(weighting=BM25(tokenizer=SubwordTokenizer(encoder.tokenizer)))
    before = filled(HybridRetriever(encoder, index, legs=("dense", "bm25")))
    before.save(tmp_path / "index")
    after = HybridRetriever.load(tmp_path / "index", encoder)
    assert after.search(QUERY) == before.search(QUERY)


# What is handed in


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.delete(), "delete expects a list of ids or a filter"),
        (lambda r: r.delete(None), "delete expects a list of ids or a filter"),
        (lambda r: r.delete(3), "list of ids, got 3"),
        (lambda r: r.delete([3]), "ids that are strings, got int"),
        (lambda r: r.get(None), "list of ids, got None"),
        (lambda r: r.score(QUERY, None), "list of ids, got None"),
        (lambda r: r.score(QUERY, ["nobody"]), "ids of the index, got 'nobody'"),
        (lambda r: r.vectors(["nobody"], outputs=("dense",)), "ids of the index, got 'nobody'"),
        (lambda r: r.add(None), "list of texts, got None"),
        (lambda r: r.add(["x"], ids=3), "list of ids, got 3"),
        (lambda r: r.add(["x"], metadata=3), "one mapping a text, got 3"),
        (lambda r: r.add(["x"], metadata=[None]), "metadata expects a mapping for each text"),
        (lambda r: r.search(QUERY, k=int("9" * 20) * -1), "k expects an integer of at least 1"),
        (lambda r: setattr(r, "weights", [1, 2, 3]), "weights expects HybridWeights"),
        (lambda r: setattr(r, "recall", 5), "recall expects a Recall"),
        (lambda r: setattr(r, "fusion", "rrf"), "fusion expects ReciprocalRankFusion"),
        (lambda r: setattr(r, "fusion", ReciprocalRankFusion), "fusion expects"),
        (lambda r: HybridRetriever(r.encoder, legs=3), "legs expects a list"),
        (lambda r: HybridRetriever(r.encoder, legs=[["dense"]]), "legs expects some of"),
        (lambda r: HybridRetriever(r.encoder, bm25=BM25()), "'bm25' among the legs"),
        (lambda r: HybridRetriever(r.encoder, r.index, bm25=BM25()), "belongs to a new index"),
    ],
)
def test_an_odd_argument_is_told_what_was_expected_and_changes_nothing(retriever, call, message):
    before = retriever.search(QUERY)
    with pytest.raises(InputError, match=message):
        call(retriever)
    assert retriever.search(QUERY) == before


def test_settings_can_be_changed_and_none_is_the_models_own(retriever):
    retriever.weights = HybridWeights(dense=1, sparse=0, colbert=0)
    hits = retriever.search(QUERY, k=3)
    assert [hit.score for hit in hits] == [hit.scores["dense"] for hit in hits]
    retriever.weights = None
    assert retriever.weights == retriever.encoder.default_weights
    retriever.recall, retriever.fusion = Recall(dense=1, lexical=1), ReciprocalRankFusion()
    assert retriever.plan.recall == Recall(dense=1, lexical=1)
    assert "fusion" in retriever.search(QUERY, k=1)[0].scores


def test_documents_can_be_deleted_by_filter(retriever):
    assert retriever.index.where({"even": True}) == ["d0", "d2", "d4", "d6"]
    assert retriever.delete(["d1", "d2", "nobody"], filter={"even": True}) == ["d2"]
    assert retriever.delete(filter={"even": True}) == ["d0", "d4", "d6"]
    assert retriever.index.ids == ("d1", "d3", "d5", "d7")
    assert retriever.delete(filter={}) == ["d1", "d3", "d5", "d7"]
    assert len(retriever) == 0


def test_an_id_given_twice_in_different_batches_of_a_generator_is_refused(encoder):
    for put in (HybridRetriever.add, HybridRetriever.upsert):
        retriever = HybridRetriever(encoder)
        ids = iter(["a", "b", "a"])
        with pytest.raises(DuplicateIdError, match="'a' twice"):
            put(retriever, iter(["one", "two", "three"]), ids=ids, batch_size=1)
        assert [record.text for record in retriever.get(["a", "b"])] == ["one", "two"]


def test_a_search_can_be_limited_to_ids_and_says_what_each_leg_recalled(retriever):
    found = retriever.search_legs(QUERY, k=8, ids=["d1", "d2", "nobody"])
    assert {hit.id for hit in found.hits} == {"d1", "d2"}
    for ranking in found.rankings.values():
        assert set(ranking.ids) <= {"d1", "d2"}
    assert retriever.search_legs(QUERY, ids=[]).hits == []
    whole = retriever.search_legs(QUERY, k=3)
    assert whole.hits == retriever.search(QUERY, k=3)
    assert set(whole.rankings) == {"dense", "sparse"}


def test_an_encoder_may_be_given_by_name(tiny_m3):
    retriever = filled(HybridRetriever(str(tiny_m3)))
    assert retriever.encoder.name == str(tiny_m3)
    with pytest.raises(InputError, match="encoder expects an M3Encoder or a model's name"):
        HybridRetriever(3)


def test_with_a_bm25_of_ones_own(encoder):
    bm25 = BM25(k1=0.5)
    retriever = filled(HybridRetriever(encoder, legs=("dense", "bm25"), bm25=bm25))
    assert retriever.index.weighting is bm25


@pytest.mark.filterwarnings("ignore::m3_retrievers.errors.UnknownTokenWarning")
def test_a_text_that_the_model_cannot_read_is_no_match(tiny_bert):
    encoder = M3Encoder.from_pretrained(
        tiny_bert, heads=HeadSpec(sparse=False, colbert="identity"), device="cpu"
    )
    retriever = HybridRetriever(encoder, legs=("dense", "bm25"))
    retriever.add(["the river", "ᚠᚢᚦᚨ", "a bridge"], ids=["a", "runes", "b"])
    assert {hit.id for hit in retriever.search("the river", k=3)} == {"a", "b"}
    assert retriever.search("ᚱᚲᚷ", k=3) == []
    [asked] = retriever.score("the river", ["runes"])
    assert (asked.id, asked.score) == ("runes", 0.0)
