"""Protocols against naive loops, measures against hand-made numbers, files against records."""

import ast
import json
from dataclasses import replace

import ir_measures
import numpy as np
import pytest
from typer.testing import CliRunner

import m3_retrievers.evaluation as room
from m3_retrievers import (
    HeadSpec,
    HybridRetriever,
    HybridWeights,
    LocalIndex,
    M3Encoder,
    Recall,
    checks,
)
from m3_retrievers.cli.app import app
from m3_retrievers.errors import DatasetError, InputError, MissingExtraError
from m3_retrievers.evaluation import (
    Collection,
    Evaluation,
    EvaluationProtocol,
    compare,
    evaluate,
    metrics,
    represent,
    tune_weights,
)
from m3_retrievers.evaluation.metrics import interval, measure
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.lexical.tokenizers import WordTokenizer
from sentences import SENTENCES

DOCUMENTS, QUERIES = SENTENCES[:12], SENTENCES[6:14]

WEIGHTS = HybridWeights(dense=0.5, sparse=0.7, colbert=1.0)


@pytest.fixture(scope="module")
def collection():
    documents = {f"d{n}": text for n, text in enumerate(DOCUMENTS)}
    queries = {f"q{n}": text for n, text in enumerate(QUERIES)}
    qrels = {f"q{n}": {f"d{n % len(DOCUMENTS)}": 2, "d1": 1} for n in range(len(QUERIES))}
    return Collection("small", "test", documents, queries, qrels)


@pytest.fixture(scope="module")
def found(encoder, collection):
    return evaluate(encoder, collection, weights=WEIGHTS, protocol=EvaluationProtocol(recall=3))


def naive(encoder, collection):
    """Scores (q, d) of each mode, by the index, one query at a time."""
    weighting = BM25(tokenizer=WordTokenizer(stop_words="en"))
    index = LocalIndex(weighting=weighting, colbert_dtype="float16")
    legs = ("dense", "sparse", "bm25")
    retriever = HybridRetriever(encoder, index, legs=legs)
    ids = list(collection.documents)
    retriever.add(list(collection.documents.values()), ids=ids)
    queries = [retriever.prepare(text) for text in collection.queries.values()]
    scores = {
        mode: np.stack([index.score(query, mode, ids) for query in queries])
        for mode in (*legs, "colbert")
    }
    scales = np.array([index.scale(query, "bm25") for query in queries])
    return scores, scales


def order(total, admitted):
    rows = [row for row in np.argsort(-total, kind="stable") if admitted[row]]
    return [f"d{row}" for row in rows]


def best(scores, depth, *, above=-np.inf):
    rows = [row for row in np.argsort(-scores, kind="stable") if scores[row] > above][:depth]
    return np.isin(np.arange(len(scores)), rows)


def test_single_modes_rank_every_document(encoder, collection, found):
    scores, _ = naive(encoder, collection)
    for mode in ("dense", "sparse", "colbert", "bm25"):
        for row, query in enumerate(collection.queries):
            values = scores[mode][row]
            admitted = values > 0 if mode in ("sparse", "bm25") else np.ones(len(values), bool)
            ids, given = found.runs[mode][query]
            np.testing.assert_allclose(given, sorted(values[admitted], reverse=True), atol=2e-4)
            assert sorted(ids) == sorted(order(values, admitted))


def test_union_completes_what_a_leg_did_not_recall(encoder, collection, found):
    scores, scales = naive(encoder, collection)
    for row, query in enumerate(collection.queries):
        d, s, c = (scores[mode][row] for mode in ("dense", "sparse", "colbert"))
        recalled = np.logical_or(best(d, 3), best(s, 3, above=0))
        total = 0.5 * d + 0.7 * s + 1.0 * c
        ids, given = found.runs["all"][query]
        assert ids == order(total, recalled)
        np.testing.assert_allclose(given, sorted(total[recalled], reverse=True), atol=2e-4)
        b = scores["bm25"][row] * scales[row]
        recalled = np.logical_or(best(d, 3), best(b, 3, above=0))
        assert found.runs["dense+bm25"][query][0] == order(0.5 * d + 0.7 * b, recalled)


def test_all_is_what_the_retriever_finds(encoder, collection, found):
    retriever = HybridRetriever(encoder, recall=Recall(dense=3, lexical=3), weights=WEIGHTS)
    ids = list(collection.documents)
    retriever.add(list(collection.documents.values()), ids=ids)
    for query, text in collection.queries.items():
        hits = retriever.search(text, k=100)
        ours, given = found.runs["all"][query]
        assert ours == [hit.id for hit in hits]
        np.testing.assert_allclose(given, [hit.score for hit in hits], atol=2e-4)


def test_the_papers_protocol_counts_a_missing_leg_as_nothing(encoder, collection):
    shallow = EvaluationProtocol(name="paper", recall=2, reranked=3)
    paper = evaluate(encoder, collection, protocol=shallow, weights=WEIGHTS)
    scores, _ = naive(encoder, collection)
    for row, query in enumerate(collection.queries):
        d, s, c = (scores[mode][row] for mode in ("dense", "sparse", "colbert"))
        in_d, in_s = best(d, 2), best(s, 2, above=0)
        total = 0.5 * np.where(in_d, d, 0) + 0.7 * np.where(in_s, s, 0)
        assert paper.runs["dense+sparse"][query][0] == order(total, in_d | in_s)
        reranked = best(d, 3)
        assert paper.runs["colbert"][query][0] == order(c, reranked)
        assert paper.runs["all"][query][0] == order(0.5 * d + 0.7 * s + c, reranked)
    assert "protocol 'paper', legs to depth 2" in paper.caption()
    assert "the dense top 3 reordered" in paper.caption()


def test_measures_are_those_of_the_field():
    run = {"q": (["a", "b", "c"], [3.0, 2.0, 1.0]), "none": ([], [])}
    qrels = {"q": {"b": 1, "c": 2, "z": 1}, "none": {"a": 1}}
    values = measure(run, qrels, ["nDCG@10", "R@100", "RR@10"])
    gained = 1 / np.log2(3) + 2 / np.log2(4)
    ideal = 2 / np.log2(2) + 1 / np.log2(3) + 1 / np.log2(4)
    np.testing.assert_allclose(values["nDCG@10"], [gained / ideal, 0], atol=1e-9)
    np.testing.assert_allclose(values["R@100"], [2 / 3, 0], atol=1e-9)
    # a query for which nothing was retrieved counts 0
    np.testing.assert_allclose(values["RR@10"], [1 / 2, 0], atol=1e-9)
    with pytest.raises(InputError, match="nDCH@10"):
        measure(run, qrels, ["nDCH@10"])


def test_measures_are_read_without_what_python_3_14_took_from_ast(monkeypatch):
    for gone in ("Num", "Str", "NameConstant"):
        monkeypatch.delitem(vars(ast), gone, raising=False)
    run = {"q": (["a", "b"], [2.0, 1.0])}
    qrels = {"q": {"a": 1, "b": 2}}
    exact = {
        "P@2": 1,
        "P(rel=2)@2": 1 / 2,
        "RR(rel=2)": 1 / 2,
        "P(rel=2, cutoff=1)": 0,
        "AP(judged_only=True)": 1,
        "IPrec@0.5": 1,
        "nDCG(dcg='log2', gains={1: 2, 2: 0})@1": 1,
    }
    values = measure(run, qrels, list(exact))
    assert {name: float(value) for name, [value] in values.items()} == pytest.approx(exact)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "nDCG@",
        "nDCG@k",
        "nDCG@-1",
        "nDCG(10)",
        "P(**{'rel': 2})",
        "P@5; R@5",
        "x.P@5",
        "P(x=[1])",
    ],
)
def test_what_is_no_measure_is_refused_by_its_name(wrong):
    with pytest.raises(InputError) as refused:
        metrics.reach(["nDCG@10", wrong])
    assert repr(wrong) in str(refused.value)


def test_equal_scores_count_in_the_order_of_the_run():
    # trec_eval would put "z" before "a", and 1e-9 is nothing to its float32
    qrels = {"q": {"z": 1}}
    for scores in ([1.0, 1.0], [1.0 + 1e-9, 1.0]):
        for ids, place in ((["a", "z"], 2), (["z", "a"], 1)):
            values = measure({"q": (ids, scores)}, qrels, ["RR@10", "nDCG@10", "P@1"])
            assert values["RR@10"][0] == 1 / place
            assert values["nDCG@10"][0] == pytest.approx(1 / np.log2(place + 1))
            assert values["P@1"][0] == (place == 1)


def test_as_many_documents_are_kept_as_the_measures_look_at(encoder, collection, found):
    assert found.settings["depth"] == 100
    kept = evaluate(encoder, collection, modes=["dense"], measures=["R@200", "RR@3"])
    assert kept.settings["depth"] == 200
    assert evaluate(encoder, collection, modes=["dense"], measures=["AP"]).settings["depth"] == 1000
    five = EvaluationProtocol(depth=5)
    cut = evaluate(encoder, collection, modes=["dense"], measures=["nDCG@5"], protocol=five)
    assert {len(ids) for ids, _ in cut.runs["dense"].values()} == {5}
    with pytest.raises(InputError, match="depth expects at least 10"):
        evaluate(encoder, collection, measures=["nDCG@10"], protocol=five)
    with pytest.raises(InputError, match="measures expects a list"):
        evaluate(encoder, collection, measures="nDCG@10")


def test_an_interval_is_the_same_in_one_piece_or_many(monkeypatch):
    values = np.random.default_rng(1).random(60)
    whole = interval(values)
    monkeypatch.setattr(metrics, "_AT_ONCE", 600)
    assert interval(values) == whole


def test_an_interval_holds_its_mean_and_shrinks():
    values = np.random.default_rng(0).random(400)
    low, high = interval(values)
    assert low < values.mean() < high
    wide = interval(values[:40])
    assert wide[1] - wide[0] > 2 * (high - low)
    # the normal approximation, for a mean of many
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_a_precomputed_representation_changes_nothing(encoder, collection, found):
    again = evaluate(
        encoder,
        collection,
        weights=WEIGHTS,
        protocol=EvaluationProtocol(recall=3),
        representations=represent(encoder, collection),
    )
    assert again.runs == found.runs
    queries, documents = represent(encoder, collection)
    with pytest.raises(InputError, match="one for each of 12 texts, got 3"):
        evaluate(encoder, collection, representations=(queries, documents[:3]))


def test_a_model_without_a_sparse_head_says_what_is_left_out(tiny_bert, collection):
    plain = M3Encoder.from_pretrained(
        tiny_bert, device="cpu", heads=HeadSpec(sparse=False, colbert="identity")
    )
    result = evaluate(plain, collection)
    assert list(result.values) == ["dense", "colbert", "bm25", "dense+bm25", "all"]
    assert any("BM25" in note for note in result.notes)
    low, high = result.interval("dense")
    assert low <= result.mean("dense") <= high
    assert f"({low:.3f} to {high:.3f})" in result._repr_markdown_()
    assert len(repr(result)) < 200
    assert "left out: sparse" in result.caption()
    with pytest.raises(InputError, match="mode 'sparse'"):
        evaluate(plain, collection, modes=["sparse"])


def test_files_hold_what_was_found(found, collection, tmp_path):
    found.save(tmp_path)
    again = Evaluation.load(tmp_path)
    assert again.caption() == found.caption()
    assert again.weights == WEIGHTS
    assert again.settings == found.settings
    assert again.settings["encoder"]["document_max_length"] == 8192
    assert set(again.versions) >= {"torch", "transformers", "ir-measures"}
    for mode in found.values:
        same = compare(again, found, mode=mode)
        assert (same.difference, same.wins, same.losses, same.p_value) == (0.0, 0, 0, 1.0)
    rows = [line.split() for line in (tmp_path / "all.trec").read_text().splitlines()]
    first = next(iter(collection.queries))
    assert [row[2] for row in rows if row[0] == first] == found.runs["all"][first][0]
    assert rows[0][1] == "Q0"
    assert [int(row[3]) for row in rows if row[0] == first][:2] == [1, 2]
    assert f"{found.mean('all'):.4f}" in (tmp_path / "table.md").read_text()
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(DatasetError, match="expected to hold results"):
        Evaluation.load(tmp_path)


def test_every_tool_reads_the_same_figures_from_a_run(encoder, collection, tmp_path):
    # each text twice: half of all scores are ties
    twice = {f"{n}{id}": text for n in "ab" for id, text in collection.documents.items()}
    qrels = {query: {f"a{id}": 1 for id in one} for query, one in collection.qrels.items()}
    result = evaluate(encoder, Collection("twice", "test", twice, collection.queries, qrels))
    result.save(tmp_path)
    for mode, values in result.values.items():
        run = ir_measures.read_trec_run(str(tmp_path / f"{mode}.trec"))
        for read in ir_measures.iter_calc([ir_measures.nDCG @ 10, ir_measures.RR @ 10], qrels, run):
            ours = values[str(read.measure)][result.query_ids.index(read.query_id)]
            assert ours == pytest.approx(read.value, abs=1e-9)


def test_published_figures_stand_beside_their_data_set(encoder, collection, found):
    assert "published" not in found.table()
    table = replace(found, collection="mldr-en").table()
    assert "BGE-M3, nDCG@10 (published)" in table
    assert "| 65.0 |" in table
    assert "averages over all languages of MLDR" in table
    # the paper's Recall@100 on MKQA asks whether there is an answer at all
    mkqa = evaluate(encoder, replace(collection, name="MKQA-de"), modes=["dense"])
    assert list(mkqa.values["dense"]) == ["nDCG@10", "R@100", "RR@10", "Success@100"]
    assert "BGE-M3, Success@100 (published)" in mkqa.table()


def test_a_frame_has_a_row_for_each_mode_and_measure(found):
    frame = found.to_pandas()
    assert list(frame.columns) == ["mode", "measure", "mean", "low", "high"]
    assert len(frame) == len(found.values) * 3
    one = frame[(frame["mode"] == "all") & (frame["measure"] == "R@100")].iloc[0]
    assert one["mean"] == found.mean("all", "R@100")
    assert (one["low"], one["high"]) == found.interval("all", "R@100")
    wide = frame.pivot(index="mode", columns="measure", values="mean")
    assert wide.loc["dense", "nDCG@10"] == found.mean("dense")


def test_a_frame_a_query_averages_to_the_means(found):
    frame = found.to_pandas(per_query=True)
    assert list(frame.columns) == ["mode", "measure", "query", "value"]
    assert list(frame["query"].unique()) == list(found.query_ids)
    means = frame.groupby(["mode", "measure"])["value"].mean()
    for mode in found.values:
        assert means[mode, "RR@10"] == pytest.approx(found.mean(mode, "RR@10"))


def test_without_pandas_the_message_says_what_to_install(found, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match=r"pip install \"m3-retrievers\[pandas\]\""):
        found.to_pandas()


def shifted(found, by):
    values = {"all": {"nDCG@10": found.values["all"]["nDCG@10"] + np.asarray(by)}}
    return replace(found, values=values)


def test_two_runs_are_compared_query_by_query(found):
    count = len(found.query_ids)
    same = compare(found, found)
    assert (same.difference, same.p_value, same.wins, same.losses) == (0.0, 1.0, 0, 0)
    better = compare(found, shifted(found, 0.01 * np.arange(1, count + 1)))
    assert better.difference == pytest.approx(0.01 * (count + 1) / 2)
    assert (better.wins, better.losses) == (count, 0)
    # every query is better: of all sign flips, only this one and its opposite are as far off
    assert better.p_value == pytest.approx(2 / 2**count, abs=0.01)
    mixed = compare(found, shifted(found, np.where(np.arange(count) % 2, 0.1, -0.1)))
    assert mixed.p_value > 0.5
    other = replace(found, query_ids=("x", *found.query_ids[1:]))
    with pytest.raises(InputError, match="same queries"):
        compare(found, other)
    with pytest.raises(InputError, match="a mode of"):
        compare(found, found, mode="none")


def test_weights_are_tuned_on_other_queries_than_reported(encoder, collection):
    one, other = collection.halves()
    grid = [HybridWeights(1, 0, 0), HybridWeights(0, 1, 0), HybridWeights(0, 0, 1), WEIGHTS]
    tuned = tune_weights(encoder, one, other, grid=grid)
    assert tuned.tried == 4
    assert tuned.trials[0] == (tuned.weights, tuned.tuned)
    means = [mean for _, mean in tuned.trials]
    assert means == sorted(means, reverse=True)
    # a weight on one mode alone is that mode's own ranking
    found = evaluate(encoder, one, protocol=EvaluationProtocol(recall=100))
    trials = dict(tuned.trials)
    assert trials[HybridWeights(1, 0, 0)] == pytest.approx(found.mean("dense"), abs=1e-9)
    assert trials[HybridWeights(0, 0, 1)] == pytest.approx(found.mean("colbert"), abs=1e-9)
    after = evaluate(encoder, other, modes=["all"], weights=tuned.weights).mean("all")
    assert tuned.after == pytest.approx(after)
    found = represent(encoder, other)
    assert tune_weights(encoder, one, other, grid=grid, representations=found) == tuned
    with pytest.raises(InputError, match="not reported on"):
        tune_weights(encoder, collection, one)


def test_wrong_arguments_say_what_is_expected(encoder, collection):
    with pytest.raises(InputError, match="protocol expects"):
        evaluate(encoder, collection, protocol="ours")
    with pytest.raises(InputError, match="modes expects"):
        evaluate(encoder, collection, modes=["hybrid"])
    with pytest.raises(InputError, match="expect a weight above 0"):
        evaluate(encoder, collection, modes=["dense+sparse"], weights=HybridWeights(0, 0, 1))
    with pytest.raises(InputError, match="weights expects HybridWeights"):
        evaluate(encoder, collection, weights=[1, 0.3, 1])
    with pytest.raises(InputError, match="modes expects a list"):
        evaluate(encoder, collection, modes="all")
    for depth in ("recall", "reranked", "depth"):
        with pytest.raises(InputError, match=f"{depth} expects an integer of at least 1, got 0"):
            EvaluationProtocol(**{depth: 0})


@pytest.fixture
def folder(collection, tmp_path):
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", collection.documents), ("queries", collection.queries)):
        rows = (json.dumps({"_id": id, "text": text}) + "\n" for id, text in texts.items())
        (folder / f"{name}.jsonl").write_text("".join(rows))
    rows = [f"{q}\t{d}\t{g}\n" for q, one in collection.qrels.items() for d, g in one.items()]
    (folder / "qrels" / "test.tsv").write_text("a\tb\tc\n" + "".join(rows))
    return folder


def command(*options):
    return CliRunner().invoke(app, ["evaluate", *map(str, options)])


def test_the_command_measures_and_compares(tiny_m3, folder, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    done = command(folder, "--model", tiny_m3, "--out", one)
    assert done.exit_code == 0, done.output
    assert "Multi-vector" in done.output
    assert (one / "dense+sparse.trec").is_file()
    options = ("--protocol", "paper", "--weights", 1, 0, 0, "--mode", "all", "--mode", "dense")
    again = command(folder, "--model", tiny_m3, *options, "--out", other, "--against", one)
    assert again.exit_code == 0, again.output
    assert "query by query" in again.output
    assert Evaluation.load(other).weights == HybridWeights(1, 0, 0)
    # two runs that are kept need no model
    kept = command(other, "--against", one, "--model", tmp_path / "none")
    assert kept.exit_code == 0, kept.output
    assert "query by query" in kept.output
    asked = command(other, "--measure", "AP")
    assert "results, which are shown as they are" in str(asked.exception)
    lexical = command(folder, "--model", tiny_m3, "--mode", "bm25", "--against", other)
    assert isinstance(lexical.exception, InputError)
    assert "a mode and a measure of this run" in str(lexical.exception)


def test_the_command_tunes_on_the_other_half(tiny_m3, folder):
    tuned = command(folder, "--model", tiny_m3, "--tune", "test", "--mode", "all")
    assert tuned.exit_code == 0, tuned.output
    assert "Best of" in tuned.output
    assert "half 2" in tuned.output
    both = command(folder, "--model", tiny_m3, "--tune", "test", "--weights", 1, 1, 1)
    assert isinstance(both.exception, InputError)


def test_the_table_of_contents_is_what_it_is():
    assert room.__all__ == [
        "Collection",
        "Comparison",
        "Evaluation",
        "EvaluationProtocol",
        "Tuned",
        "compare",
        "evaluate",
        "interval",
        "read_collection",
        "read_qrels",
        "read_run",
        "represent",
        "tune_weights",
        "write_qrels",
        "write_run",
    ]
    for name in room.__all__:
        assert getattr(room, name).__name__ == name


def test_a_hybrid_whose_modes_weigh_nothing_is_left_out(encoder, collection):
    found = evaluate(encoder, collection, weights=HybridWeights(0, 0, 1))
    assert {"dense+sparse", "dense+bm25"}.isdisjoint(found.values)
    assert "left out: dense+sparse (its weights are 0)" in found.caption()
    np.testing.assert_allclose(found.mean("all"), found.mean("colbert"), atol=1e-9)
