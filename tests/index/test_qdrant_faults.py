"""A server that is gone, silent, talking nonsense, or killed; a folder that is taken or torn.

The sockets are this machine's own: a time-out and a connection cut in the middle are the
network's, and no stand-in for it would show what the client does then.
"""

import json
import socket
import subprocess
import sys
import threading
import time

import pytest

from m3_retrievers import BM25, QdrantIndex, QdrantStorage
from m3_retrievers.errors import (
    IndexLockedError,
    IndexModelError,
    IndexUnavailableError,
    InputError,
    SavedIndexError,
)
from m3_retrievers.testing.samples import question, records, represent
from m3_retrievers.types.hits import Record
from m3_retrievers.types.plan import Plan

pytest.importorskip("qdrant_edge")
pytest.importorskip("qdrant_client")

KEY = "secret-key-of-the-server"
NO = json.dumps({"result": {"exists": False}, "status": "ok", "time": 0}).encode()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection"),
]


def answer(body, status="200 OK", length=None):
    head = f"HTTP/1.1 {status}\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.fixture
def server(socket_enabled):
    """Give a function that starts a server of raw answers, one a connection; the last repeats.

    An answer of None leaves the connection open and silent.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    open_ones, seen = [], []

    def serve(answers):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_ones.append(connection)
            given = answers.pop(0) if len(answers) > 1 else answers[0]
            seen.append(connection.recv(65536))
            if given is not None:
                connection.sendall(given)
                connection.close()

    def start(*answers):
        threading.Thread(target=serve, args=(list(answers),), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}", seen

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for one in open_ones:
        one.close()


def fails(url, *, timeout=0.6, match="Qdrant at"):
    """Open an index at an address that is of no use; returns the seconds it took to say so."""
    started = time.monotonic()
    with pytest.raises(IndexUnavailableError, match=match) as raised:
        QdrantIndex(url, api_key=KEY, timeout=timeout, collection="docs")
    assert f"{url!r}" in str(raised.value)
    assert KEY not in str(raised.value)
    assert KEY not in repr(raised.value.__cause__)
    return time.monotonic() - started


def test_a_server_that_never_answers_is_an_error_when_its_time_is_over(server):
    url, seen = server(None)
    assert 0.5 < fails(url, match="Timeout") < 2
    assert len(seen) == 1, "what did not come in time is not asked for again"


def test_an_address_where_nobody_listens_is_tried_until_the_time_is_over(
    socket_enabled,
):
    with socket.create_server(("127.0.0.1", 0)) as free:
        gone = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert fails(gone, match="ConnectError") < 2


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        answer(b"<html>not found</html>"),
        answer(b'{"result": null, "status": "ok"}'),
        answer(b'{"result": {"exists": "perhaps"}}'),
        answer(b"\xff\xfe\x00"),
        answer(b"{}", "418 I'm a teapot"),
    ],
    ids=["another protocol", "HTML", "no result", "a wrong type", "no text", "a status"],
)
def test_an_answer_that_makes_no_sense_is_an_error_in_time(server, nonsense):
    url, _ = server(nonsense)
    assert fails(url) < 2


def test_a_server_killed_in_the_middle_of_an_answer_is_asked_again_and_then_an_error(server):
    url, seen = server(answer(NO, length=4 * len(NO)))
    assert fails(url, match="RemoteProtocolError") < 2
    assert len(seen) > 2


@pytest.mark.parametrize(
    "failing", [b"", answer(NO, length=999), answer(b"", "503 Service Unavailable")]
)
def test_what_passes_is_survived(server, failing):
    url, seen = server(failing, failing, answer(NO))
    index = QdrantIndex(url, timeout=5)
    assert len(seen) == 4  # two failures, and the two looks for a note
    index.close()


def test_a_wrong_key_is_told_at_once_and_not_tried_again(server):
    url, seen = server(answer(b'{"status":{"error":"Invalid API key"}}', "403 Forbidden"))
    assert fails(url, timeout=5, match="Pass the api_key=") < 2
    assert len(seen) == 1
    assert KEY.encode() in seen[0]


def test_a_password_in_the_address_is_not_shown(server):
    url, _ = server(answer(b"{}", "500 Internal Server Error"))
    with pytest.raises(IndexUnavailableError) as raised:
        QdrantIndex(url.replace("//", "//me:hidden@"), timeout=0.5)
    assert "hidden" not in str(raised.value)


def test_a_second_process_is_told_that_the_folder_is_taken(tmp_path):
    index = QdrantIndex(tmp_path)
    index.add(records(2), represent(2))
    code = (
        "import sys\nfrom m3_retrievers import QdrantIndex\nfrom m3_retrievers.errors import *\n"
        "try:\n    QdrantIndex(sys.argv[1])\nexcept IndexLockedError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "one process at a time" in done.stdout
    assert str(tmp_path) in done.stdout
    assert len(index) == 2
    with pytest.raises(IndexLockedError):
        QdrantIndex(tmp_path)
    index.close()
    again = QdrantIndex(tmp_path)
    assert len(again) == 2
    again.close()


WRITER = """
import sys
from m3_retrievers import QdrantIndex
from m3_retrievers.testing.samples import records, represent
index = QdrantIndex(sys.argv[1])
print(len(index), flush=True)
for at in range(len(index), 10_000, 2):
    index.add(records(2, first=at), represent(2, seed=at))
    print(at + 2, flush=True)
"""


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill(tmp_path):
    """Killed at some moment, five times: all acknowledged adds are there, and each is whole."""
    acknowledged = 0
    for after in (0.02, 0.05, 0.1, 0.2, 0.3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert int(writer.stdout.readline()) >= acknowledged, "an acknowledged add is lost"
            acknowledged = int(writer.stdout.readline())
            time.sleep(after)
            writer.kill()
            whole = [line for line in writer.stdout.read().split("\n")[:-1] if line]
            acknowledged = max([acknowledged, *map(int, whole)])
    index = QdrantIndex(tmp_path)
    assert len(index) >= acknowledged >= 10
    ids = index.where(None)
    assert ids == [record.id for record in records(len(ids))]
    assert index.vectors(ids).outputs == ("dense", "sparse", "colbert")
    assert index.search(question(), Plan(), k=len(ids)).hits
    index.close()


def test_a_note_that_was_changed_is_an_error_that_names_the_file(tmp_path):
    index = QdrantIndex(tmp_path)
    index.add(records(2), represent(2))
    index.close()
    (note,) = tmp_path.rglob("m3_retrievers.json")
    note.write_text("{torn")
    with pytest.raises(SavedIndexError, match=r"m3_retrievers\.json"):
        QdrantIndex(tmp_path)


def test_a_collection_of_somebody_else_is_left_alone():
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    vectors = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection("theirs", vectors_config=vectors)
    with pytest.raises(InputError, match="not made by m3-retrievers"):
        QdrantIndex(client, collection="theirs")
    client.close()


def test_a_collection_is_opened_as_it_was_made(tmp_path):
    index = QdrantIndex(tmp_path, modes=("dense", "sparse"), weighting=BM25(k1=1.2))
    index.add(records(3), represent(3))
    index.close()
    for options, said in (
        ({}, "weighting"),
        ({"weighting": BM25(k1=2.0)}, "weighting"),
        ({"weighting": BM25(k1=1.2), "modes": ("dense",)}, "modes"),
        ({"weighting": BM25(k1=1.2), "average_length": 50}, "average_length"),
        ({"weighting": BM25(k1=1.2), "storage": QdrantStorage(dense="float16")}, "storage"),
    ):
        with pytest.raises(InputError, match=said):
            QdrantIndex(tmp_path, **options)
    again = QdrantIndex(tmp_path, weighting=BM25(k1=1.2))
    assert again.modes == {"dense", "sparse", "bm25"}
    again.close()


@pytest.mark.parametrize(
    ("location", "options", "said"),
    [
        (7, {}, "a folder, a URL or a QdrantClient"),
        ("data", {"api_key": KEY}, "belong to the URL"),
        ("data", {"timeout": 3}, "belong to the URL"),
        ("http://host", {"timeout": 0}, "seconds above 0"),
        ("http://host", {"timeout": True}, "seconds above 0"),
        ("data", {"collection": "../up"}, "collection expects"),
        ("data", {"collection": ".."}, "collection expects"),
        ("data", {"modes": "dense"}, "modes expects"),
        ("data", {"modes": ["dense", "bm25"]}, "modes expects"),
        ("data", {"modes": []}, "modes expects"),
        ("data", {"average_length": 20}, "average_length belongs"),
        ("data", {"average_length": 0, "weighting": BM25()}, "average_length expects"),
        ("data", {"weighting": BM25(variant="plus")}, "okapi"),
        ("data", {"weighting": BM25(idf="rank_bm25")}, "lucene"),
    ],
)
def test_options_are_refused_before_anything_is_opened(tmp_path, location, options, said):
    place = tmp_path / location if location == "data" else location
    with pytest.raises(InputError, match=said) as raised:
        QdrantIndex(place, **options)
    assert "got" in str(raised.value)
    assert KEY not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_model_bound_before_the_first_document_is_known_to_others(tmp_path):
    index = QdrantIndex(tmp_path)
    index.bind({"name": "m", "fingerprint": "one"})
    other = QdrantIndex(tmp_path)
    with pytest.raises(IndexModelError):
        other.bind({"name": "m", "fingerprint": "two"})
    index.add([Record("a", "x")], represent(1))
    with pytest.raises(IndexLockedError):
        len(other)
    index.close()
