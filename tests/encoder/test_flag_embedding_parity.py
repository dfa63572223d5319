"""M3Encoder against what FlagEmbedding 1.4.2 computed on the same checkpoint.

The recording is in tests/fixtures; record_flag_embedding.py there says how it was made.
Everything agrees within 1e-5. FlagEmbedding's batched ColBERT score differs from its own
pair by pair score by what padding does to a maximum; ours is the one without padding.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from checkpoints import digest, write_tiny_m3
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import M3Warning
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.plan import HybridWeights
from m3_retrievers.types.representations import Output, Representations
from m3_retrievers.types.scores import Scores

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDED = json.loads((FIXTURES / "flag_embedding.json").read_text("utf-8"))
ARRAYS = load_file(FIXTURES / "flag_embedding.safetensors")
TEXTS: list[str] = RECORDED["texts"]
PAIRS: list[tuple[int, int]] = [(q, d) for q, d in RECORDED["pairs"]]
LONG: int = RECORDED["long_text"]
LIMITS = [8192, 32]
TOLERANCE = 1e-5


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(limit, marks=pytest.mark.slow) if limit > 1_000 else limit for limit in LIMITS
    ],
    ids=[f"max_length_{limit}" for limit in LIMITS],
)
def limit(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def encoder(tiny_m3: Path, limit: int) -> M3Encoder:
    return _encoder(tiny_m3, limit)


@pytest.fixture(scope="module")
def encoded(encoder: M3Encoder) -> Any:
    return _cut(encoder.encode_documents, TEXTS)


def test_the_checkpoint_is_the_recorded_one(tiny_m3: Path) -> None:
    assert digest(tiny_m3) == RECORDED["checkpoint_sha256"], (
        "tests/checkpoints.py writes other numbers than when the fixtures were recorded: run "
        "tests/fixtures/record_flag_embedding.py again"
    )


def test_dense_vectors_are_equal(encoded: Representations, limit: int) -> None:
    _assert_close(encoded.dense, ARRAYS[f"dense_{limit}"])


def test_lexical_weights_are_equal(encoded: Representations, limit: int) -> None:
    expected = RECORDED["limits"][str(limit)]["lexical_weights"]
    ours = encoded.to_flag_embedding()
    for text, mine, theirs in zip(TEXTS, ours, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=TOLERANCE, rel=0), text[:60]


def test_colbert_vectors_are_equal(encoded: Representations, limit: int) -> None:
    colbert = encoded.colbert
    assert colbert is not None
    assert colbert.lengths.tolist() == RECORDED["limits"][str(limit)]["colbert_lengths"]
    theirs = ARRAYS[f"colbert_{limit}"]
    _assert_close(_recorded_rows(colbert), theirs)


def test_queries_and_documents_are_read_alike(encoder: M3Encoder, encoded: Representations) -> None:
    _assert_same(_cut(encoder.encode_queries, TEXTS), encoded)


@pytest.mark.parametrize("which", [0, 1], ids=["weights_04_02_04", "weights_1_03_1"])
def test_the_five_pair_scores_are_equal(encoder: M3Encoder, limit: int, which: int) -> None:
    expected = RECORDED["limits"][str(limit)]["scores"][which]
    for name, mine in _five_lists(_score(encoder, expected["weights"])).items():
        _assert_close(mine, expected["single"][name])


def test_colbert_equals_the_per_pair_function(encoder: M3Encoder, limit: int) -> None:
    ours = _score(encoder, [1.0, 0.3, 1.0]).colbert
    theirs = RECORDED["limits"][str(limit)]["per_pair_colbert"]
    _assert_close(ours, theirs)


def test_their_batched_colbert_differs_by_padding_alone(
    encoded: Representations, limit: int
) -> None:
    """A zero row of padding lifts to 0 each query token whose similarities are all negative."""
    recorded = RECORDED["limits"][str(limit)]["scores"][0]
    batched = np.array(recorded["batched"]["colbert"])
    colbert = encoded.colbert
    assert colbert is not None
    longest = max(len(colbert[d]) for _, d in PAIRS)
    explained = []
    for q, d in PAIRS:
        best = (colbert[q] @ colbert[d].T).max(axis=1)
        padded = len(colbert[d]) < longest
        explained.append(np.maximum(best, 0).mean() if padded else best.mean())
    _assert_close(batched, explained)
    lifted = batched - np.array(recorded["single"]["colbert"]) > 1e-3
    assert lifted.any(), "no recorded pair shows the difference any more"


def test_truncated_dimensions_are_normalised_after_the_cut(tiny_m3: Path) -> None:
    encoder = _encoder(tiny_m3, 32, truncate_dim=16)
    dense = _cut(encoder.encode_documents, TEXTS).dense
    _assert_close(dense, ARRAYS["dense_cut_to_16"])


def test_mean_pooling_leaves_padding_out(tiny_m3: Path) -> None:
    encoder = _encoder(tiny_m3, 32, pooling="mean")
    dense = _cut(encoder.encode_documents, TEXTS).dense
    _assert_close(dense, ARRAYS["dense_mean_pooling"])


@pytest.mark.parametrize(
    "formats",
    [
        {"weights_format": "bin"},
        {"heads_dtype": "float16"},
        {"heads_format": "safetensors", "heads_dtype": "float16"},
    ],
    ids=lambda formats: "-".join(formats.values()),
)
def test_every_file_format_holds_the_same_model(tmp_path: Path, formats: dict[str, Any]) -> None:
    encoder = _encoder(write_tiny_m3(tmp_path, **formats), 32)
    encoded = _cut(encoder.encode_documents, TEXTS)
    _assert_close(encoded.dense, ARRAYS["dense_32"])
    assert encoded.colbert is not None
    rows = _recorded_rows(encoded.colbert)
    _assert_close(rows, ARRAYS["colbert_32"])
    expected = RECORDED["limits"]["32"]["lexical_weights"]
    for mine, theirs in zip(encoded.to_flag_embedding(), expected, strict=True):
        assert mine == pytest.approx(theirs, abs=TOLERANCE, rel=0)


@pytest.mark.parametrize("batch_tokens", [1, 40, 333, 100_000])
def test_the_batch_budget_changes_nothing(
    tiny_m3: Path, encoded: Representations, limit: int, batch_tokens: int
) -> None:
    encoder = _encoder(tiny_m3, limit, batch_tokens=batch_tokens)
    short = np.arange(LONG + 1, len(TEXTS))  # the long text alone would fill 100,000 tokens
    _assert_same(_cut(encoder.encode_documents, TEXTS[LONG + 1 :]), encoded[short])


def test_order_changes_nothing(encoder: M3Encoder, encoded: Representations) -> None:
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = _cut(encoder.encode_documents, [TEXTS[row] for row in order])
    _assert_same(shuffled, encoded[order])


def test_company_changes_nothing(encoder: M3Encoder, encoded: Representations) -> None:
    for row, text in enumerate(TEXTS):
        _assert_same(_cut(encoder.encode_documents, [text]), encoded[row])
        _assert_same(_cut(encoder.encode_query, text), encoded[row])


def test_repeated_texts_have_equal_rows(encoder: M3Encoder) -> None:
    twice = encoder.encode_documents([TEXTS[5], TEXTS[31], TEXTS[5]])
    _assert_same(twice[2], twice[0])


@pytest.mark.parametrize(
    "outputs",
    [("dense",), ("sparse",), ("colbert",), ("colbert", "dense"), ("sparse", "colbert")],
    ids="-".join,
)
def test_output_selection_changes_nothing(
    encoder: M3Encoder, encoded: Representations, outputs: tuple[Output, ...]
) -> None:
    chosen = _cut(encoder.encode_documents, TEXTS, outputs=outputs)
    assert set(chosen.outputs) == set(outputs)
    _assert_same(chosen, encoded.select(outputs))


def _encoder(folder: Path, limit: int, **options: Any) -> M3Encoder:
    limits: Any = {"query_max_length": limit, "document_max_length": limit}
    return M3Encoder.from_pretrained(
        folder, device="cpu", precision="fp32", keep=None, **limits, **options
    )


def _cut(encode: Any, texts: Any, **options: Any) -> Any:
    """Call an encode method; that it cuts some of the texts is meant here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", M3Warning)
        return encode(texts, **options)


def _recorded_rows(colbert: MultiVectors) -> np.ndarray:
    """Return the token vectors the recording kept: of the long text every 97th and the last."""
    step = RECORDED["stride"]
    return np.concatenate(
        [
            np.concatenate([rows[::step], rows[-1:]]) if n == LONG else rows
            for n, rows in enumerate(colbert)
        ]
    )


def _score(encoder: M3Encoder, weights: list[float]) -> Any:
    pairs = [(TEXTS[q], TEXTS[d]) for q, d in PAIRS]
    return _cut(encoder.score_pairs, pairs, weights=HybridWeights(*weights))


def _five_lists(scores: Scores) -> dict[str, Any]:
    return {
        "dense": scores.dense,
        "sparse": scores.sparse,
        "colbert": scores.colbert,
        "sparse+dense": scores.sparse_dense,
        "colbert+sparse+dense": scores.colbert_sparse_dense,
    }


def _assert_close(ours: Any, expected: Any) -> None:
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE, rtol=0)


def _assert_same(ours: Representations, expected: Representations) -> None:
    assert ours.outputs == expected.outputs
    if ours.dense is not None:
        _assert_close(ours.dense, expected.dense)
    if ours.sparse is not None and expected.sparse is not None:
        assert ours.sparse.shape == expected.sparse.shape
        assert abs(ours.sparse - expected.sparse).max() <= TOLERANCE
        assert ours.sparse.nnz == expected.sparse.nnz
    if isinstance(ours.colbert, MultiVectors) and expected.colbert is not None:
        assert ours.colbert.offsets.tolist() == expected.colbert.offsets.tolist()
        _assert_close(ours.colbert.vectors, expected.colbert.vectors)
