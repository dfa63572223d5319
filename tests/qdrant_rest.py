"""Qdrant's REST interface over the client's local mode: what goes over the wire, without a wire.

Each request is read with the models that the client was generated with, so one that a server
could not read fails here too; and each is remembered, to be counted.
"""

import json
import re
import threading

import httpx
from qdrant_client import QdrantClient, models


class RestQdrant:
    """``transport`` goes into ``QdrantClient(url=…, transport=…)``; ``seen`` lists what came."""

    def __init__(self):
        self.local = QdrantClient(":memory:")
        self.gone = False
        self._turn = threading.Lock()  # the local mode takes one call at a time
        self.seen = []
        self.bodies = []
        self.transport = httpx.MockTransport(self._answer)

    def client(self):
        return QdrantClient(
            url="http://engine:6333", transport=self.transport, check_compatibility=False
        )

    def _answer(self, request):
        with self._turn:
            return self._answered(request)

    def _answered(self, request):
        if self.gone:
            raise httpx.ConnectError("connection refused")
        path = request.url.path
        self.seen.append(f"{request.method} {re.sub('/collections/[^/]+', '', path) or '/'}")
        self.bodies.append(request.content)
        name = path.split("/")[2]
        handler = ROUTES[self.seen[-1]]
        if handler is not create and not path.endswith("/exists"):
            known = [one.name for one in self.local.get_collections().collections]
            if name not in known and request.method != "DELETE":
                return httpx.Response(404, json={"status": {"error": f"{name} doesn't exist"}})
        result = handler(self.local, name, request.content)
        return httpx.Response(200, json={"result": result, "status": "ok", "time": 0.0})


def dumped(value):
    return (
        [dumped(one) for one in value] if isinstance(value, list) else value.model_dump(mode="json")
    )


def create(local, name, body):
    asked = models.CreateCollection.model_validate_json(body)
    return local.create_collection(
        name,
        vectors_config=asked.vectors or {},
        sparse_vectors_config=asked.sparse_vectors,
        metadata=asked.metadata,
    )


def update(local, name, body):
    return local.update_collection(name, metadata=json.loads(body)["metadata"])


def upsert(local, name, body):
    asked = models.PointsList.model_validate_json(body)
    local.upsert(name, asked.points, update_mode=asked.update_mode)
    return {"operation_id": 1, "status": "completed"}


def delete(local, name, body):
    local.delete(name, models.FilterSelector.model_validate_json(body))
    return {"operation_id": 1, "status": "completed"}


def retrieve(local, name, body):
    asked = models.PointRequest.model_validate_json(body)
    return dumped(local.retrieve(name, asked.ids, asked.with_payload, asked.with_vector))


def scroll(local, name, body):
    asked = models.ScrollRequest.model_validate_json(body)
    points, _ = local.scroll(
        name,
        scroll_filter=asked.filter,
        limit=asked.limit,
        order_by=asked.order_by,
        with_payload=asked.with_payload,
    )
    return {"points": dumped(points)}


def query(local, name, body):
    asked = models.QueryRequestBatch.model_validate_json(body)
    for search in asked.searches:
        _without_params(search)
    return dumped(local.query_batch_points(name, asked.searches))


def _without_params(search):
    """Take away what local mode has no use for, and says so with a warning."""
    search.params = None
    for inner in search.prefetch or []:
        _without_params(inner)


def exists(local, name, body):
    return {"exists": local.collection_exists(name)}


def index(local, name, body):
    models.CreateFieldIndex.model_validate_json(body)
    return {"operation_id": 1, "status": "completed"}


ROUTES = {
    "GET /exists": exists,
    "GET /": lambda local, name, body: local.get_collection(name).model_dump(mode="json"),
    "PUT /": create,
    "PATCH /": update,
    "DELETE /": lambda local, name, body: local.delete_collection(name),
    "PUT /index": index,
    "PUT /points": upsert,
    "POST /points/delete": delete,
    "POST /points": retrieve,
    "POST /points/scroll": scroll,
    "POST /points/count": lambda local, name, body: {"count": local.count(name).count},
    "POST /points/query/batch": query,
}
