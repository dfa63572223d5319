"""Figures: what they show, that they say it in words, and that both themes can read them."""

import io
from base64 import b64decode
from html import unescape

import numpy as np
import pytest
from PIL import Image

from m3_retrievers import Hit, HybridRetriever, HybridWeights, ReciprocalRankFusion
from m3_retrievers.display import fonts, heat_map, plots
from m3_retrievers.display.figures import INK, colour
from m3_retrievers.display.heat_map import best_stretch
from m3_retrievers.display.labels import fitted
from m3_retrievers.errors import InputError, MissingExtraError
from m3_retrievers.explain import Alignment, explain
from m3_retrievers.types.hits import Hits

pytestmark = pytest.mark.slow

DOCUMENTS = [
    "A librarian finds the one page that matters.",
    "The river rose three metres overnight, and the bridge was closed before dawn.",
    "page page pages 😀 café page",
    "图书管理员很快找到了那一页。",
    "وجدت أمينة المكتبة الصفحة الصحيحة بسرعة.",
]
ODD_IDS = ["图书/第一页", "الصفحة", "docs/" + "very/" * 30 + "long.md", "$x_2$ <b>&\n\t\ud800", ""]


def filled(encoder, documents=DOCUMENTS, **options) -> HybridRetriever:
    retriever = HybridRetriever(encoder, **options)
    retriever.add(documents, ids=[f"d{row}" for row in range(len(documents))])
    return retriever


@pytest.fixture(scope="module")
def retriever(encoder):
    return filled(encoder)


@pytest.fixture(scope="module")
def hits(retriever):
    return retriever.search("the page", k=5)


def rendered(figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return Image.open(buffer).convert("RGBA")


def words(figure) -> list[str]:
    """Return every text of a figure."""
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text"))]


def all_plots(hits, other):
    return [
        hits.plot(title="q $x$ 图"),
        hits.plot_scores(title="q"),
        hits.plot_against(other, names=("稠密 $x$", "b\n")),
    ]


# Lists of hits


def test_a_bar_is_each_modes_share(hits):
    figure = hits.plot()
    (axes,) = figure.axes
    for container, mode in zip(axes.containers, hits[0].contributions, strict=True):
        widths = [bar.get_width() for bar in container]
        np.testing.assert_allclose(widths, [hit.contributions[mode] for hit in hits])
    assert [label.get_text() for label in axes.get_yticklabels()] == [hit.id for hit in hits]
    assert f" {hits[0].score:.3f}" in words(figure)


def test_shares_below_0_stand_left_of_the_line():
    hits = Hits([Hit("a", "x", 0.25, contributions={"dense": -0.5, "sparse": -0.25, "colbert": 1})])
    (axes,) = hits.plot().axes
    dense, sparse, colbert = (container[0] for container in axes.containers)
    assert (dense.get_x(), dense.get_width()) == (0, -0.5)
    assert (sparse.get_x(), sparse.get_width()) == (-0.5, -0.25)
    assert (colbert.get_x(), colbert.get_width()) == (0, 1)


def test_only_as_many_hits_are_drawn_as_asked_for(hits):
    figure = hits.plot(most=2)
    assert len(figure.axes[0].get_yticklabels()) == 2
    assert "for 2 of 5 hits" in plots.alt_text(figure)


def test_a_mode_is_drawn_with_its_own_scores(hits):
    figure = hits.plot_scores()
    assert len(figure.axes) == len(hits[0].scores)
    for axes, mode in zip(figure.axes, hits[0].scores, strict=True):
        ticks, first = axes.get_lines()
        np.testing.assert_allclose(ticks.get_xdata(), [hit.scores[mode] for hit in hits])
        assert first.get_xdata()[0] == hits[0].scores[mode]
        assert sum(axes.patches[0].get_data().values) == len(hits)


def test_a_fused_list_has_scores_and_no_shares(encoder):
    hits = filled(encoder, fusion=ReciprocalRankFusion()).search("the page", k=5)
    with pytest.raises(InputError, match=r"fusion=None.*plot_scores"):
        hits.plot()
    text = plots.alt_text(hits.plot_scores())
    missing = sum("sparse" not in hit.scores for hit in hits)
    assert f"{missing} of 5 not scored" in text


def test_two_rankings_are_joined_by_lines():
    first = Hits([Hit(id, id, 0.0) for id in "abcd"])
    second = Hits([Hit(id, id, 0.0) for id in "bacx"])
    figure = first.plot_against(second, names=("dense", "hybrid"), most=3)
    (axes,) = figure.axes
    ends = {tuple(line.get_ydata()): line for line in axes.get_lines()}
    assert set(ends) == {(1, 2), (2, 1), (3, 3)}
    assert ends[2, 1].get_color() == colour("dense")
    assert ends[1, 2].get_linestyle() == "--"
    assert ends[3, 3].get_color() == INK
    assert {"dense", "hybrid", "rises", "falls", "stays"} <= set(words(figure))
    wider = first.plot_against(second, most=4)
    text = plots.alt_text(wider)
    assert "d 4 to not found" in text
    assert "x not found to 4" in text
    assert words(wider).count("–") == 2
    deeper = first[:1].plot_against(second, most=1)
    assert "a 1 to 2; b not found to 1" in plots.alt_text(deeper)


@pytest.mark.parametrize("most", [0, -1, 1.5, None])
def test_how_many_are_drawn_is_checked(hits, most):
    with pytest.raises(InputError, match="most expects an integer of at least 1"):
        hits.plot(most=most)
    with pytest.raises(InputError, match="most expects an integer of at least 1"):
        hits.plot_against(hits, most=most)


def test_there_is_nothing_to_draw_of_no_hits():
    none = Hits()
    for draw in (none.plot, none.plot_scores, lambda: none.plot_against([])):
        with pytest.raises(InputError, match="expects hits"):
            draw()
    one = Hits([Hit("a", "x", 1.0, scores={"dense": 1.0}, contributions={"dense": 1.0})])
    for names in (("a",), "ab", ("a", "b", "c")):
        with pytest.raises(InputError, match="names expects one for each of the two lists"):
            one.plot_against(one, names=names)
    for figure in (one.plot(), one.plot_scores(), none.plot_against(one)):
        rendered(figure)


def test_odd_ids_are_drawn_without_a_warning(encoder):
    retriever = HybridRetriever(encoder)
    retriever.add([f"page {row}" for row in range(len(ODD_IDS))], ids=ODD_IDS)
    hits = retriever.search("page 3", k=5)
    sparse = HybridRetriever(encoder, retriever.index, weights=HybridWeights(0, 1, 0))
    for figure in all_plots(hits, sparse.search("page 1", k=5)):
        rendered(figure)
        text = plots.alt_text(figure)
        assert text.encode().decode() == text
        assert "\n" not in text
        assert len(text) < 700


def test_a_made_up_id_is_shown_by_its_text(encoder):
    retriever = HybridRetriever(encoder)
    retriever.add(["the one page"])
    figure = retriever.search("page").plot()
    assert "the one page" in words(figure)
    assert "the one page" in plots.alt_text(figure)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("shutil.rmtree", "shutil.rmtree"),
        ("docs/reference/shutil.md#rmtree", "docs/re…#rmtree"),
        ("a\n b", "a b"),
        ("图书管理员很快找到了那一页", "图书管理…那一页"),
    ],
)
def test_a_long_id_keeps_both_ends(text, shown):
    assert fitted(text, 15) == shown


# Every figure


def test_every_figure_says_what_it_shows_where_a_notebook_shows_it(retriever, hits):
    heat = explain("the page", hits[0], retriever=retriever).plot()
    for figure in (*all_plots(hits, hits), heat):
        text = plots.alt_text(figure)
        assert len(text) > 60
        shown, about = figure._repr_mimebundle_()
        assert about["image/png"]["alt"] == shown["text/plain"] == text
        assert f'alt="{text}"' in unescape(shown["text/html"])
        assert shown["image/png"] in shown["text/html"]
        image = Image.open(io.BytesIO(b64decode(shown["image/png"])))
        assert image.size[0] // 2 == about["image/png"]["width"]


def test_a_description_cannot_end_the_image():
    hostile = '"><script>alert(1)</script>'
    hits = Hits([Hit(hostile, "x", 1.0, contributions={"dense": 1.0})])
    html = hits.plot()._repr_mimebundle_()[0]["text/html"]
    assert "<script" not in html
    assert html.count("<") == 1


def test_another_figure_has_no_description():
    from matplotlib.figure import Figure

    assert plots.alt_text(Figure()) == ""


def luminance(rgb) -> float:
    parts = np.asarray(rgb) / 255
    linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_text_is_legible_on_white_and_on_black(hits):
    from matplotlib.colors import to_rgb
    from matplotlib.text import Text

    for page in ((255, 255, 255), (17, 17, 17)):
        low, high = sorted((luminance(page), luminance(np.array(to_rgb(INK)) * 255)))
        assert (high + 0.05) / (low + 0.05) > 4
    for figure in (hits.plot(), hits.plot_scores(), hits.plot_against(hits)):
        corners = np.asarray(rendered(figure))[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert not corners[:, 3].any(), "the page shows through"
        for text in filter(Text.get_text, figure.findobj(Text)):
            assert to_rgb(text.get_color()) == to_rgb(INK), text


def test_a_figure_is_the_callers_alone_and_leaves_matplotlib_as_it_was(hits):
    import matplotlib
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    hits.plot()
    hits.plot_scores()
    assert dict(matplotlib.rcParams) == before
    assert not pyplot.get_fignums()


# The heat map


def test_a_heat_map_of_any_script_draws_without_a_warning(encoder):
    hostile = r"$\frac{ the page 图书 पन्ना الصفحة 😀 $x^2$ % & # _ \ud800"
    retriever = filled(encoder, [hostile, *DOCUMENTS])
    hit = next(hit for hit in retriever.search(hostile) if hit.text == hostile)
    figure = explain(hostile, hit, retriever=retriever).plot()
    assert rendered(figure).size[0] > 100
    from matplotlib import pyplot

    assert not pyplot.get_fignums()


def test_a_long_document_shows_the_stretch_that_holds_the_matches(encoder):
    filler = "The river rose three metres overnight. " * 12
    text = filler + "A librarian finds the one page that matters. " + filler
    retriever = filled(encoder, [text])
    (hit,) = retriever.search("the one page that matters", k=1)
    why = explain("the one page that matters", hit, retriever=retriever)
    figure = why.plot(width=12)
    axes, _ = figure.axes
    image = axes.get_images()[0].get_array()
    first = best_stretch(why.alignment, 12)
    np.testing.assert_array_equal(image, why.alignment.similarities[:, first : first + 12])
    found = [at for at in why.alignment.best if first <= at < first + 12]
    assert len(axes.collections[0].get_offsets()) == len(found)
    assert f"of {image.shape[0]} best matches lie outside" in axes.get_title("left")
    assert f"of {why.alignment.similarities.shape[1]:,};" in axes.get_title("left")


def test_the_stretch_is_the_one_whose_best_matches_add_up_to_most():
    rng = np.random.default_rng(0)
    for _ in range(20):
        alignment = Alignment(rng.uniform(-1, 1, (5, 30)))
        first = best_stretch(alignment, 7)

        def worth(start, alignment=alignment):
            pairs = zip(alignment.best, alignment.maxima, strict=True)
            return sum(max(0.0, s) for at, s in pairs if start <= at < start + 7)

        assert worth(first) == pytest.approx(max(worth(start) for start in range(24)))


def test_without_matplotlib_the_message_says_what_to_install(retriever, monkeypatch):
    from m3_retrievers import checks

    hit = retriever.search("page", k=1)[0]
    why = explain("page", hit, retriever=retriever)
    monkeypatch.setattr(checks, "find_spec", lambda module: None)
    for draw in (why.plot, retriever.search("page").plot, retriever.search("page").plot_scores):
        with pytest.raises(MissingExtraError, match=r"pip install \"m3-retrievers\[plot\]\""):
            draw()
    with pytest.raises(InputError, match="width"):
        why.plot(width=0)


def test_a_label_that_no_font_draws_is_its_place(monkeypatch):
    held = {"plain": frozenset(map(ord, "ab…")), "far": frozenset(map(ord, "図")), "none": set()}
    monkeypatch.setattr(fonts, "_families", lambda: {name: name for name in held})
    monkeypatch.setattr(fonts, "_glyphs", held.__getitem__)
    families, drawn = fonts.drawing(["ab", "図", "ह"])
    assert families == ["plain", "far"]
    assert heat_map._labels(["▁ab", "図", "ह"], range(3), drawn) == ["ab", "図", "#3"]


def test_a_family_without_a_regular_weight_is_used(monkeypatch):
    # WenQuanYi, often a machine's only Chinese font, calls itself medium
    from matplotlib import font_manager

    fonts._families.cache_clear()
    entries = [
        font_manager.FontEntry(fname=f"{name}-{weight}", name=name, style=style, weight=weight)
        for name, weight, style in [
            ("Bold", 700, "normal"),
            ("Both", 700, "normal"),
            ("Both", 400, "normal"),
            ("Both", 300, "normal"),
            ("Medium", 500, "normal"),
            ("Slanted", 400, "italic"),
        ]
    ]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    found = fonts._families()
    fonts._families.cache_clear()
    assert found == {"Bold": "Bold-700", "Both": "Both-400", "Medium": "Medium-500"}


def test_a_character_without_a_font_is_a_box_and_a_text_without_any_its_place(monkeypatch):
    held = {"plain": frozenset(map(ord, "ab…□"))}
    monkeypatch.setattr(fonts, "_families", lambda: {name: name for name in held})
    monkeypatch.setattr(fonts, "_glyphs", held.__getitem__)
    assert fonts.drawable(["a 図 b", "図書", "ab", ""]) == (["a □ b", "#2", "ab", "#4"], ["plain"])
