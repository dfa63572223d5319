"""The playground without a browser: the document, its policy, what it draws, in a notebook."""

import base64
import hashlib
import html
import json
import re
from importlib import resources

import pytest

from m3_retrievers import HeadSpec, HybridRetriever, M3Encoder, Recall, ReciprocalRankFusion
from m3_retrievers.display.playground import page as pages
from m3_retrievers.display.playground.data import about, candidates, reading, scoring_plan
from m3_retrievers.errors import CallError, InputError
from m3_retrievers.explain import explain
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import HybridWeights, encoded_modes
from sentences import SENTENCES

TEXTS = [*SENTENCES[:8], "</script><script>alert(1)</script> <!-- the page -->"]
DENSE_ALONE = HeadSpec(sparse=False, colbert=False)
FOLDER = resources.files("m3_retrievers.display.playground")


@pytest.fixture(scope="module")
def retriever(encoder):
    made = HybridRetriever(encoder, recall=Recall(dense=5, lexical=5))
    made.add(TEXTS, ids=[f"d{n}" for n in range(len(TEXTS))], metadata=[{"n": n} for n in range(9)])
    return made


def asked(retriever, text, recall=None):
    plan = scoring_plan(retriever, recall)
    outputs = encoded_modes(plan.modes)
    query = Query(text, retriever.encoder.encode_query(text, outputs=outputs))
    return candidates(retriever, query, plan)


def inline(tag, document):
    return re.search(rf"<{tag}[^>]*>(.*?)</{tag}>", document, re.DOTALL)[1]


def test_the_policy_names_the_style_and_the_script_that_are_there():
    document = pages.page()
    policy = pages.policy(served=True)
    assert f'content="{policy}"' in document
    script = re.search(r'<script type="module">(.*?)</script>', document, re.DOTALL)[1]
    for rule, text in (("style-src", inline("style", document)), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "connect-src 'none'" in pages.policy(served=False)
    assert "unsafe" not in policy


def test_the_page_loads_nothing_and_hides_no_script_in_its_markup():
    markup = FOLDER.joinpath("page.html").read_text("utf-8")
    whole = pages.page()
    assert not re.search(r"\son\w+=|\sstyle=|\ssrc=", markup)
    assert re.findall(r'href="([^"]*)"', markup) == ["data:,"]
    assert not re.search(r"https?:|//cdn|@import|url\(", whole)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", whole)


def test_every_file_of_the_page_is_in_it_once_and_after_what_it_imports():
    files = {one.name for one in FOLDER.iterdir() if one.name.endswith(".js")}
    assert sorted(pages.SCRIPTS) == sorted(files)
    exported, declared = set(), []
    for name in pages.SCRIPTS:
        text = FOLDER.joinpath(name).read_text("utf-8")
        assert len(text.splitlines()) <= 200, name
        for names in re.findall(r"^import \{ (.*?) \} from", text, re.MULTILINE):
            assert {one.strip() for one in names.split(",")} <= exported, name
        exported |= set(
            re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", text, re.M)
        )
        declared += re.findall(
            r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+)", text, re.MULTILINE
        )
    # they become one module, in which a name is declared once
    assert sorted(declared) == sorted(set(declared))
    assert not re.search(r"^(import|export) ", pages.script(), re.MULTILINE)


@pytest.mark.parametrize(
    "weights",
    [
        HybridWeights(),
        HybridWeights(dense=0.4, sparse=0.2, colbert=0.4),
        HybridWeights(dense=0, sparse=1, colbert=0),
        HybridWeights(dense=0, sparse=0, colbert=2),
    ],
)
def test_weights_times_parts_give_the_score_of_a_search_with_these_weights(encoder, weights):
    made = HybridRetriever(encoder, legs=("dense", "bm25"), weights=HybridWeights())
    made.add(TEXTS)
    found = {one["id"]: one["parts"] for one in asked(made, "the page that matters")}
    made.weights = weights
    hits = made.search("the page that matters", k=20)
    assert {hit.id for hit in hits} <= set(found)
    for hit in hits:
        score = sum(weights.of(mode) * part for mode, part in found[hit.id].items())
        assert score == pytest.approx(hit.score, abs=1e-12)


def test_candidates_are_the_legs_union_in_order_of_insertion_with_their_places(retriever):
    found = asked(retriever, "the river rose", Recall(dense=2, lexical=1))
    legs = retriever.search_legs(
        "the river rose", plan=scoring_plan(retriever, Recall(dense=2, lexical=1))
    ).rankings
    ids = [one["id"] for one in found]
    assert set(ids) == {id for ranking in legs.values() for id in ranking.ids}
    assert ids == retriever.index.in_order(ids)
    for one in found:
        expected = {
            leg: r.ids.index(one["id"]) + 1 for leg, r in legs.items() if one["id"] in r.ids
        }
        assert one["places"] == expected
        assert set(one["scores"]) == {"dense", "sparse", "colbert"}


def test_a_long_text_is_cut_and_a_fused_retriever_is_scored(encoder):
    made = HybridRetriever(encoder, fusion=ReciprocalRankFusion())
    made.add(["the page " * 500])
    [one] = asked(made, "page")
    assert len(one["text"]) < 500
    assert one["parts"]
    assert about("mine", made)["fused"]


def test_what_no_leg_and_no_index_has_cannot_be_weighed(encoder, tiny_bert):
    dense = HybridRetriever(
        encoder, legs=("dense",), weights=HybridWeights(dense=1, sparse=0, colbert=0)
    )
    assert about("dense", dense)["weighted"] == ["dense"]
    bare = M3Encoder.from_pretrained(tiny_bert, device="cpu", heads=DENSE_ALONE)
    assert about("bare", HybridRetriever(bare, legs=("dense", "bm25")))["weighted"] == [
        "dense",
        "bm25",
    ]


def test_a_reading_has_both_texts_whole_in_pieces_and_the_alignment(retriever):
    query, id = "the page that matters", "d0"
    why = explain(query, id, retriever=retriever)
    found = json.loads(json.dumps(reading(why)))
    assert "".join(piece["text"] for piece in found["query"]) == query
    assert "".join(piece["text"] for piece in found["document"]) == TEXTS[0]
    marks = [piece["text"] for piece in found["document"] if piece["lexical"]]
    assert marks
    heat = found["heat_map"]
    assert heat["best"] == why.alignment.best.tolist()
    assert len(heat["rows"]) == len(heat["similarities"])
    assert len(heat["columns"]) == heat["length"] == len(heat["similarities"][0])
    assert sum(one["score"] for one in found["terms"]) > 0


def test_a_reading_of_a_long_document_shows_the_stretch_that_matters(encoder):
    filler = "The river rose three metres overnight. " * 60
    made = HybridRetriever(encoder)
    made.add([filler + "A librarian finds the one page that matters. " + filler], ids=["a"])
    found = reading(explain("the one page that matters", "a", retriever=made))
    shown = "".join(piece.get("text", "") for piece in found["document"])
    assert "librarian" in shown
    omitted = sum(piece.get("omitted", 0) for piece in found["document"])
    assert omitted + len(shown) == len(made.get(["a"])[0].text)
    heat = found["heat_map"]
    assert len(heat["columns"]) == 64 < heat["length"]
    assert 0 < heat["first"] <= heat["length"] - 64


def test_an_empty_text_and_a_model_without_heads_are_read(encoder, tiny_bert):
    made = HybridRetriever(encoder)
    made.add([""], ids=["a"])
    assert reading(explain("", "a", retriever=made))["document"] == []
    bare = HybridRetriever(
        M3Encoder.from_pretrained(tiny_bert, device="cpu", heads=DENSE_ALONE), legs=("dense",)
    )
    bare.add(["the page"], ids=["a"])
    found = reading(explain("page", "a", retriever=bare))
    assert found["heat_map"] is None
    assert found["terms"] == []
    assert any("no colbert head" in note for note in found["notes"])


def recorded_in(shown):
    return json.loads(re.search(r'id="recorded">(.*?)</script>', shown.html, re.DOTALL)[1])


def test_a_notebook_s_page_brings_its_answers_and_asks_nobody(retriever):
    shown = retriever.playground(["the page", "<script>the river</script>"], k=2)
    data = recorded_in(shown)
    assert [one["name"] for one in data["indexes"]] == ["this retriever"]
    answer = data["answers"]["the page"]["this retriever"]
    assert answer["candidates"] == asked(retriever, "the page")
    best = [hit.id for hit in retriever.search("the page", k=2)]
    assert set(best) <= set(answer["readings"])
    assert len(answer["readings"]) < len(answer["candidates"])
    assert "connect-src 'none'" in shown.html
    assert shown.html.count("<script") == 2  # the data's and the page's own
    frame = shown._repr_html_()
    assert 'sandbox="allow-scripts"' in frame
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1]) == shown.html
    assert "Playground" in repr(shown)


def test_without_questions_the_documents_own_words_are_asked(retriever, encoder):
    questions = list(recorded_in(retriever.playground(k=1))["answers"])
    assert len(questions) == 3
    assert TEXTS[0].startswith(questions[0])
    assert recorded_in(HybridRetriever(encoder).playground())["answers"] == {}


def test_other_retrievers_stand_beside_it_by_name(retriever, encoder):
    other = HybridRetriever(encoder, legs=("dense",))
    other.add(TEXTS[:2], ids=["d0", "d1"])
    data = recorded_in(retriever.playground("the page", others={"small": other}, k=1))
    assert [one["name"] for one in data["indexes"]] == ["this retriever", "small"]
    assert set(data["answers"]["the page"]) == {"this retriever", "small"}
    with pytest.raises(InputError, match=r"take \.hybrid"):
        retriever.playground("the page", others={"no": object()})
    with pytest.raises(InputError, match="strings"):
        retriever.playground([1])
    with pytest.raises(CallError, match="queries"):
        retriever.playground(query="the page")
