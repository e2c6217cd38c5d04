"""The part of Salesforce's REST API that the bot uses, on this machine: the one thing here that is no real service."""

import asyncio
import random
import re
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .slow import Slow

SESSION_ID: Final = "00D000000000000!example"
"""The session id that the stub lets in."""
PHONES: Final = ("+14155550100", "+14155550101", "+14155550102")
"""Numbers of its customers, from the range that is reserved for fiction."""

_SOQL: Final = re.compile(r"SELECT (?P<fields>.+?) FROM (?P<object>\w+) WHERE (?P<field>\w+) = '(?P<value>[^']*)'")


class SalesforceStub:
    """Answers queries over one field and creates records, with a Salesforce's usual delay.

    Args:
        delay_ms: shortest and longest time to answer.
        slow: how much longer it takes than that.

    """

    def __init__(self, delay_ms: tuple[float, float] = (25, 70), slow: Slow | None = None) -> None:
        self._delay_ms = delay_ms
        self._slow = slow or Slow()
        self.records: dict[str, list[dict[str, Any]]] = {
            "Contact": [
                {"Id": f"003{n:015d}", "FirstName": name, "Phone": phone}
                for n, (name, phone) in enumerate(zip(("Ada", "Grace", "Edith"), PHONES, strict=True))
            ],
            "Order": [
                {"OrderNumber": number, "Status": status, "ShipToContactId": f"003{n:015d}"}
                for n, (number, status) in enumerate(
                    [("4 2 7", "on its way"), ("3 1 8", "being packed"), ("5 0 9", "at the post office")]
                )
            ],
            "Task": [],
        }

    def app(self) -> Starlette:
        """The server."""
        version = "/services/data/v{version}"
        return Starlette(
            routes=[
                Route(f"{version}/query/", self._query),
                Route(f"{version}/sobjects/{{name}}/", self._create, methods=["POST"]),
            ]
        )

    async def _query(self, request: Request) -> Response:
        if refusal := await self._admit(request):
            return refusal
        asked = _SOQL.match(request.query_params.get("q", ""))
        if asked is not None and asked["object"] == "Order":
            await asyncio.sleep(self._slow.salesforce_orders)
        if asked is None or asked["object"] not in self.records:
            return _error(400, "MALFORMED_QUERY", "the stub knows SELECT ... FROM ... WHERE field = 'value'")
        names = asked["fields"].split(", ")
        found = [
            {"attributes": {"type": asked["object"]}, **{name: record.get(name) for name in names}}
            for record in self.records[asked["object"]]
            if record.get(asked["field"]) == asked["value"]
        ]
        return JSONResponse({"totalSize": len(found), "done": True, "records": found})

    async def _create(self, request: Request) -> Response:
        if refusal := await self._admit(request):
            return refusal
        records = self.records.setdefault(request.path_params["name"], [])
        record = {"Id": f"00T{len(records):015d}", **await request.json()}
        records.append(record)
        return JSONResponse({"id": record["Id"], "success": True, "errors": []}, status_code=201)

    async def _admit(self, request: Request) -> Response | None:
        usual_s = random.uniform(*self._delay_ms) / 1_000  # noqa: S311 # nosec B311 # no secret
        await asyncio.sleep(usual_s + self._slow.salesforce)
        if request.headers.get("authorization") != f"Bearer {SESSION_ID}":
            return _error(401, "INVALID_SESSION_ID", "Session expired or invalid")
        return None


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse([{"errorCode": code, "message": message}], status_code=status)
