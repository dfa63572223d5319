"""The house rules that a reader relies on, read from the code itself."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import m3_retrievers

ROOT = Path(m3_retrievers.__file__).parent

# A file may import only from rows above its own; rooms of one row never import each other.
ROWS = [
    ["errors"],
    ["checks", "habits", "names"],
    ["types"],
    ["scoring"],
    ["encoder", "lexical", "index", "corpora"],
    ["retrieval"],
    ["explain", "training"],
    ["evaluation", "frameworks", "display", "testing"],
    ["langchain", "llama_index", "serve"],
    ["cli"],
    ["__main__"],
]
ROW_OF = {room: row for row, rooms in enumerate(ROWS) for room in rooms}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports_of(path: Path, *, shown: bool = True) -> set[str]:
    """Return the dotted names a file imports, at any depth.

    shown: False leaves out what ``_repr_html_`` and the plots load at the moment they are called.
    """
    tree = tree_of(path)
    found = set()
    nodes = list(ast.walk(tree)) if shown else [n for f in tree.body for n in _without_display(f)]
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _without_display(node: ast.AST):
    """Walk a tree, passing over the functions in which a data type shows itself."""
    if isinstance(node, ast.FunctionDef) and node.name.startswith(
        ("_repr_html_", "plot", "playground")
    ):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _without_display(child)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_up_the_rows_and_never_sideways(path):
    room = room_of(path)
    for name in imports_of(path, shown=False):
        if not name.startswith("m3_retrievers."):
            continue
        other = name.split(".")[1]
        if other == "__version__":
            continue
        assert other == room or ROW_OF[other] < ROW_OF[room], f"{path} imports {name}"


MAY_LOAD = {
    "langchain_core": {"langchain"},
    "langchain_milvus": {"langchain"},
    "langchain_qdrant": {"langchain"},
    "llama_index": {"llama_index"},
    "typer": {"cli"},
    "rich": {"cli", "display"},
    "psycopg": {"index"},
    "rank_bm25": {"lexical"},
    "qdrant_client": {"index"},
    "qdrant_edge": {"index"},
    "Stemmer": {"lexical"},
    "httpx": {"encoder", "index"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "transformers": {"encoder", "training"},
    "accelerate": {"training"},
    "peft": {"training"},
    "ir_measures": {"evaluation"},
    "matplotlib": {"display", "explain", "types"},
    "pandas": {"types", "explain", "evaluation"},
    "pytest": {"testing"},
    "torch": {"scoring", "encoder", "training", "cli"},
}


# An engine's client is imported by the files of that engine's index alone.
CLIENTS = {
    "pymilvus": {"milvus"},
    "milvus_lite": {"milvus"},
    "grpc": {"milvus", "qdrant"},
    "qdrant_client": {"qdrant"},
    "qdrant_edge": {"qdrant"},
    "psycopg": {"pgvector"},
    "sqlite3": {"durable"},
}


def test_an_engine_s_client_is_loaded_by_its_own_files_alone():
    for path in FILES:
        for name in imports_of(path):
            engines = CLIENTS.get(name.split(".")[0])
            where = path.relative_to(ROOT)
            assert engines is None or where.parts[0] == "index", f"{path} imports {name}"
            assert engines is None or where.parts[1] in engines, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_is_loaded_only_where_it_belongs(path):
    for name in imports_of(path):
        rooms = MAY_LOAD.get(name.split(".")[0])
        assert rooms is None or room_of(path) in rooms, f"{path} imports {name}"


def test_the_table_of_contents_is_what_it_is():
    assert m3_retrievers.__all__ == [
        "BM25",
        "CombinedEncoder",
        "Connection",
        "DurableIndex",
        "HeadSpec",
        "Hit",
        "HttpEncoder",
        "HybridRetriever",
        "HybridWeights",
        "LocalIndex",
        "M3Encoder",
        "MilvusIndex",
        "PgVectorIndex",
        "QdrantIndex",
        "QdrantStorage",
        "Recall",
        "ReciprocalRankFusion",
        "Representations",
        "Scores",
        "SpladeEncoder",
        "TeiEncoder",
        "VllmEncoder",
        "WeightedSum",
    ]
    for name in m3_retrievers.__all__:
        assert getattr(m3_retrievers, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        m3_retrievers.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    "module",
    [
        "m3_retrievers",
        "m3_retrievers.langchain",
        "m3_retrievers.llama_index",
        "m3_retrievers.training",
        "m3_retrievers.explain",
        "m3_retrievers.serve",
    ],
)
def test_importing_the_package_loads_neither_torch_nor_a_framework(module):
    heavy = """{'torch', 'transformers', 'scipy', 'langchain_core', 'llama_index', 'rank_bm25',
             'httpx', 'starlette', 'uvicorn'}"""
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_file_prints_or_catches_everything():
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                assert caught not in ("everything", "Exception", "BaseException"), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", path


def test_nothing_is_pickled():
    for path in FILES:
        for name in imports_of(path):
            if name.split(".")[0] in ("pickle", "dill", "joblib", "shelve"):
                # files.py names the error that torch's safe loader raises
                assert path.name == "files.py", f"{path} imports {name}"


def test_a_file_fits_a_few_screens_and_a_function_one():
    for path in FILES:
        assert len(path.read_text("utf-8").splitlines()) <= 320, path
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= 50, f"{path}: {node.name} has {lines} lines"
