"""A server that knows arrays of vectors, for requests to be recorded: Milvus Lite with a double.

Milvus Lite keeps everything but the token vectors. Those are taken out of what pymilvus sends,
kept here, and scored by loops over them, as Milvus's documentation describes MAX_SIM_IP.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from milvus_lite import MilvusLite
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2

VERSION = "v2.6.4"


class Recorder(MilvusServicer):
    """Milvus Lite's own service, with token vectors and a record of what was asked of them."""

    def __init__(self, db: MilvusLite) -> None:
        super().__init__(db)
        self.schemas: list[schema_pb2.CollectionSchema] = []
        self.indexes: dict[str, dict[str, str]] = {}
        self.searches: list[milvus_pb2.SearchRequest] = []
        self.vectors: dict[str, np.ndarray] = {}
        self.rows: dict[str, tuple[int, str]] = {}

    def GetVersion(self, request: Any, context: Any) -> Any:
        answer = super().GetVersion(request, context)
        answer.version = VERSION
        return answer

    def CreateCollection(self, request: Any, context: Any) -> Any:
        schema = schema_pb2.CollectionSchema()
        schema.ParseFromString(request.schema)
        self.schemas.append(schema)
        plain = schema_pb2.CollectionSchema()
        plain.CopyFrom(schema)
        plain.ClearField("struct_array_fields")
        request.schema = plain.SerializeToString()
        return super().CreateCollection(request, context)

    def DescribeCollection(self, request: Any, context: Any) -> Any:
        answer = super().DescribeCollection(request, context)
        for schema in self.schemas:
            if schema.name == request.collection_name:
                answer.schema.struct_array_fields.extend(schema.struct_array_fields)
        return answer

    def CreateIndex(self, request: Any, context: Any) -> Any:
        if "[" not in request.field_name:
            return super().CreateIndex(request, context)
        self.indexes[request.field_name] = {pair.key: pair.value for pair in request.extra_params}
        return common_pb2.Status(code=0)

    def DescribeIndex(self, request: Any, context: Any) -> Any:
        if request.index_name in self.indexes:
            description = milvus_pb2.IndexDescription(
                field_name=request.index_name,
                index_name=request.index_name,
                state=common_pb2.IndexState.Finished,
            )
            return milvus_pb2.DescribeIndexResponse(
                status=common_pb2.Status(code=0), index_descriptions=[description]
            )
        return super().DescribeIndex(request, context)

    def Upsert(self, request: Any, context: Any) -> Any:
        fields = {field.field_name: field for field in request.fields_data}
        if "colbert" in fields:
            [sub] = fields["colbert"].struct_arrays.fields
            keys = fields["key"].scalars.string_data.data
            places = fields["place"].scalars.long_data.data
            ids = fields["id"].scalars.string_data.data
            for key, place, id, one in zip(
                keys, places, ids, sub.vectors.vector_array.data, strict=True
            ):
                flat = np.array(one.float_vector.data, np.float32)
                self.vectors[key] = flat.reshape(-1, one.dim)
                self.rows[key] = place, id
            kept = [field for name, field in fields.items() if name != "colbert"]
            del request.fields_data[:]
            request.fields_data.extend(kept)
        return super().Upsert(request, context)

    def Search(self, request: Any, context: Any) -> Any:
        params = {pair.key: pair.value for pair in request.search_params}
        if params["anns_field"] != "colbert[v]":
            return super().Search(request, context)
        self.searches.append(request)
        asked = common_pb2.PlaceholderGroup()
        asked.ParseFromString(request.placeholder_group)
        [holder] = asked.placeholders
        keys = re.findall(r'"([0-9a-f]+)"', request.dsl)
        width = next(iter(self.vectors.values())).shape[1]
        query = np.frombuffer(holder.values[0], np.float32).reshape(-1, width)
        scored = sorted(
            ((float((query @ self.vectors[key].T).max(1).sum()), key) for key in keys),
            reverse=True,
        )[: int(params["topk"])]
        return milvus_pb2.SearchResults(
            status=common_pb2.Status(code=0), results=self._answer(scored)
        )

    def _answer(self, scored: list[tuple[float, str]]) -> schema_pb2.SearchResultData:
        keys = [key for _, key in scored]
        data = schema_pb2.SearchResultData(
            num_queries=1,
            top_k=len(scored),
            topks=[len(scored)],
            scores=[score for score, _ in scored],
            primary_field_name="key",
            output_fields=["place", "id"],
        )
        data.ids.str_id.data.extend(keys)
        place = data.fields_data.add(field_name="place", type=schema_pb2.DataType.Int64)
        place.scalars.long_data.data.extend(self.rows[key][0] for key in keys)
        id = data.fields_data.add(field_name="id", type=schema_pb2.DataType.VarChar)
        id.scalars.string_data.data.extend(self.rows[key][1] for key in keys)
        return data


def serve(folder: Path, socket: str) -> tuple[grpc.Server, MilvusLite, Recorder]:
    """Start the double on a Unix socket."""
    db = MilvusLite(str(folder))
    recorder = Recorder(db)
    server = grpc.server(ThreadPoolExecutor(4))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(recorder, server)
    server.add_insecure_port(socket)
    server.start()
    return server, db, recorder


def params(index: dict[str, str]) -> dict[str, Any]:
    """Return the settings of an index as they were sent, nested ones read."""
    return {key: json.loads(value) if value[:1] in "{[" else value for key, value in index.items()}
