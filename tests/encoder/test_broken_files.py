"""Whatever is wrong with a model's files is a CheckpointError that names a file or the folder."""

import json
import os
import resource
import shutil
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.heads import HeadSpec
from m3_retrievers.errors import CheckpointError

pytestmark = pytest.mark.slow

JSON_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "m3_retrievers.json",
    "1_Pooling/config.json",
    "adapter_config.json",
)
BINARY_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "sparse_linear.pt",
    "colbert_linear.pt",
    "sparse_linear.safetensors",
    "adapter_model.safetensors",
)


@pytest.fixture
def folder(tiny_m3: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_m3, tmp_path / "model")


def prepare(folder: Path, name: str) -> Path:
    """Return the path of a file that is whole and that the folder is read from."""
    path = folder / name
    if name == "pytorch_model.bin":
        torch.save(load_file(folder / "model.safetensors"), path)
        (folder / "model.safetensors").unlink()
    elif name == "sparse_linear.safetensors":
        save_file(torch.load(folder / "sparse_linear.pt", weights_only=True), path)
        (folder / "sparse_linear.pt").unlink()
    elif name == "m3_retrievers.json":
        path.write_text(json.dumps({"pooling": "cls", "max_length": 64}))
    elif name.startswith("adapter"):
        shutil.copytree(folder, folder / "backbone")
        layer = "base_model.model.encoder.layer.0.attention.self.query"
        delta = {"lora_A.weight": torch.ones(2, 32), "lora_B.weight": torch.zeros(32, 2)}
        save_file(
            {f"{layer}.{key}": value for key, value in delta.items()},
            folder / "adapter_model.safetensors",
        )
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
        config["base_model_name_or_path"] = str(folder / "backbone")
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return path


def use(folder: Path) -> None:
    M3Encoder.from_pretrained(folder, device="cpu").encode_documents(["The river rose."])


def assert_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        use(folder)
    assert str(folder) in str(caught.value)
    assert str(caught.value).endswith((".", "m3-mini'."))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def nonsense(path: Path) -> None:
    path.write_bytes(b"no such thing")


def not_utf8(path: Path) -> None:
    path.write_bytes(b'{"a": "\xff\xfe\xfa"}')


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def endless_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def array(path: Path) -> None:
    path.write_text("[1, 2]")


def null(path: Path) -> None:
    path.write_text("null")


def number(path: Path) -> None:
    path.write_text("9" * 5000)


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


DAMAGES = (empty, cut, nonsense, not_utf8, directory, endless_link)
JSON_DAMAGES = (array, null, number, deep)


@pytest.mark.parametrize("name", JSON_FILES + BINARY_FILES)
def test_the_files_are_read_while_they_are_whole(folder: Path, name: str) -> None:
    prepare(folder, name)
    use(folder)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", JSON_FILES + BINARY_FILES)
def test_a_damaged_file_is_refused(folder: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(prepare(folder, name))
    assert_refused(folder)


@pytest.mark.parametrize("damage", JSON_DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", JSON_FILES)
def test_json_that_is_no_object_is_refused(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(prepare(folder, name))
    assert_refused(folder)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file"
)
@pytest.mark.parametrize("name", JSON_FILES + BINARY_FILES)
def test_a_file_without_permission_is_refused(folder: Path, name: str) -> None:
    prepare(folder, name).chmod(0)
    assert_refused(folder)


SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "vocab_size",
)


@pytest.mark.parametrize("value", ["32", -1, 0, 1.5, [32], {}, True, 10**12, 2**31 - 1])
@pytest.mark.parametrize("key", SIZES)
def test_a_size_that_cannot_be_is_refused(folder: Path, key: str, value: object) -> None:
    change(folder / "config.json", **{key: value})
    assert_refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": None},
        {"model_type": "no-such-architecture"},
        {"model_type": ["bert"]},
        {"model_type": "clip"},
        {"model_type": "t5"},
        {"hidden_size": None},
        {"hidden_size": 64},
        {"num_attention_heads": 5},
        {"num_hidden_layers": 900},
        {"num_hidden_layers": 3},
        {"vocab_size": 7},
        {"intermediate_size": 1_000_000},
        {"hidden_size": 100_000, "num_attention_heads": 1},
        {"max_position_embeddings": 3},
        {"pad_token_id": "x"},
        {"pad_token_id": -5},
        {"pad_token_id": 10**9},
        {"pad_token_id": [1]},
        {"hidden_act": "no-such-function"},
        {"hidden_act": 5},
        {"hidden_dropout_prob": "x"},
        {"hidden_dropout_prob": 7},
        {"layer_norm_eps": "x"},
        {"torch_dtype": "no-such-type"},
        {"dtype": 7},
        {"id2label": 3},
        {"id2label": {"a": "b"}},
        {"chunk_size_feed_forward": "x"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"quantization_config": {"quant_method": "no-such"}},
        {"transformers_weights": "../elsewhere.safetensors"},
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_is_refused(folder: Path, changes: dict) -> None:
    change(folder / "config.json", **changes)
    assert_refused(folder)


def test_an_empty_configuration_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    assert_refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_length": -5},
        {"max_length": 2},
        {"max_length": "512"},
        {"max_length": 1.5},
        {"max_length": True},
        {"max_length": 10**30},
        {"pooling": "max"},
        {"pooling": 3},
        {"pooling": ["cls"]},
        {"heads": {"sparse": "yes"}},
        {"heads": {"dense": True}},
        {"heads": []},
        {"heads": 5},
        {"heads": None},
        {"weights": {"dense": -1}},
        {"weights": {"dense": "1"}},
        {"weights": {"bm25": 1}},
        {"weights": [1, 1, 1]},
        {"weights": {"dense": 0, "sparse": 0, "colbert": 0}},
    ],
    ids=str,
)
def test_settings_of_a_checkpoint_that_cannot_be_are_refused(folder: Path, changes: dict) -> None:
    (folder / "m3_retrievers.json").write_text(json.dumps(changes))
    assert_refused(folder)


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": ["cls", "mean"]},
        {"pooling_mode": 3},
        {"word_embedding_dimension": 32},
    ],
    ids=str,
)
def test_a_pooling_that_is_not_read_is_refused_unless_one_is_given(
    folder: Path, pooling: dict
) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    assert_refused(folder)
    assert M3Encoder.from_pretrained(folder, pooling="mean").source.pooling == "mean"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
    ],
    ids=str,
)
def test_the_pooling_of_both_layouts_of_sentence_transformers_is_read(
    folder: Path, written: dict, expected: str
) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(written))
    assert M3Encoder.from_pretrained(folder).source.pooling == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"r": "2"},
        {"r": -2},
        {"r": 10**400},
        {"lora_alpha": "4"},
        {"lora_alpha": None},
        {"lora_alpha": float("nan")},
        {"base_model_name_or_path": None},
        {"base_model_name_or_path": ["a"]},
        {"base_model_name_or_path": ""},
        {"base_model_name_or_path": "a\0b"},
        {"base_model_name_or_path": "x" * 5000},
        {"revision": 3},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_an_adapters_configuration_that_cannot_be_is_refused(folder: Path, changes: dict) -> None:
    change(prepare(folder, "adapter_config.json"), **changes)
    with pytest.raises(CheckpointError):
        use(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": None},
        {"model": {}},
        {"model": {"type": "NoSuch"}},
        {"model": {"type": "Unigram", "vocab": [], "unk_id": 3}},
        {"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 99}},
        {"model": {"type": "WordPiece", "vocab": {}}},
        {"normalizer": {"type": "NoSuch"}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"pre_tokenizer": 5},
        {"post_processor": None},
        {"added_tokens": 7},
        {"added_tokens": [{"id": "x"}]},
        {"version": 9},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_a_tokenizer_that_cannot_be_is_refused_or_works(folder: Path, changes: dict) -> None:
    """transformers rebuilds some parts of an XLM-R tokenizer, whatever its file says of them."""
    change(folder / "tokenizer.json", **changes)
    with suppress(CheckpointError):
        use(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_backbone_with_numbers_that_are_not_finite_is_refused(folder: Path, bad: float) -> None:
    state = load_file(folder / "model.safetensors")
    state["encoder.layer.1.output.dense.weight"][3, 4] = bad
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"NaN or infinity in .*layer\.1\.output\.dense"):
        use(folder)


def test_weights_that_overflow_in_half_precision_are_refused_and_say_which_type_helps(
    folder: Path,
) -> None:
    state = load_file(folder / "model.safetensors")
    state["encoder.layer.0.output.dense.weight"][0, 0] = 1e6
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    use(folder)
    with pytest.raises(CheckpointError, match="fp32"):
        M3Encoder.from_pretrained(folder, device="cpu", precision="fp16").encode_query("a")


def peak_megabytes() -> float:
    """Return the largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def test_a_small_head_that_claims_gigabytes_is_refused_before_they_are_allocated(
    folder: Path,
) -> None:
    rows = 20_000_000
    state = {"weight": torch.zeros(1).expand(rows, 32), "bias": torch.zeros(1).expand(rows)}
    torch.save(state, folder / "colbert_linear.pt")
    assert (folder / "colbert_linear.pt").stat().st_size < 4_000
    before = peak_megabytes()
    with pytest.raises(CheckpointError, match=r"claims a tensor .* of shape \[20000000, 32\]"):
        use(folder)
    assert peak_megabytes() - before < 300


def test_a_head_in_a_compressed_archive_is_refused(folder: Path) -> None:
    path = folder / "sparse_linear.pt"
    with zipfile.ZipFile(path) as archive:
        parts = {one.filename: archive.read(one) for one in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match="compressed"):
        use(folder)


def test_a_safetensors_head_whose_header_claims_more_than_it_holds_is_refused(
    folder: Path,
) -> None:
    path = prepare(folder, "sparse_linear.safetensors")
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["weight"]["shape"] = [20_000_000, 32]
    written = json.dumps(header).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + content[8 + size :])
    assert_refused(folder)


def test_a_tokenizer_larger_than_the_backbone_is_refused(folder: Path, tiny_bert: Path) -> None:
    other = shutil.copytree(tiny_bert, folder.parent / "bert")
    vocabulary = {f"t{n}": n for n in range(9)}
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    size = len(tokenizer["model"]["vocab"])
    tokenizer["model"]["vocab"] |= {f"extra{n}": size + n for n in range(len(vocabulary))}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    encoder = M3Encoder.from_pretrained(other, heads=HeadSpec(sparse=False, colbert=False))
    with pytest.raises(CheckpointError, match="holds a tokenizer of"):
        encoder.encode_query("a")


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
