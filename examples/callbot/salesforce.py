"""Salesforce, through simple-salesforce: who calls, where their order is, and a note of the call."""

from typing import Any, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from simple_salesforce.api import Salesforce
from simple_salesforce.format import format_soql

from callbot_latency import OperationType, measure_latency


def connect(instance_url: str, session_id: str) -> Salesforce:
    """A client for the organisation at `instance_url`.

    simple-salesforce always speaks https; for an ``http://`` address, such as the stub's on this machine, the
    connection itself is a plain one.
    """
    session = requests.Session()
    parts = urlsplit(instance_url)
    if parts.scheme == "http":
        session.mount(f"https://{parts.netloc}/", _PlainAdapter())
    return Salesforce(instance_url=instance_url, session_id=session_id, session=session)


class _PlainAdapter(HTTPAdapter):
    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        request.url = (request.url or "").replace("https://", "http://", 1)
        return super().send(request, *args, **kwargs)


_SALESFORCE: Final = OperationType.SALESFORCE


class CustomerRecords:
    """What one call reads and writes in Salesforce. Its methods block: run them with ``asyncio.to_thread``."""

    def __init__(self, salesforce: Salesforce, call_sid: str) -> None:
        self._salesforce = salesforce
        self.call_sid = call_sid

    @measure_latency(_SALESFORCE, provider="salesforce", call_sid_attr="call_sid")
    def find_contact(self, phone: str) -> dict[str, Any] | None:
        """The contact with this telephone number."""
        query = format_soql("SELECT Id, FirstName FROM Contact WHERE Phone = {} LIMIT 1", phone)
        return _first(self._salesforce.query(query))

    @measure_latency(_SALESFORCE, provider="salesforce", call_sid_attr="call_sid")
    def find_order(self, contact_id: str) -> dict[str, Any] | None:
        """The contact's newest order."""
        query = format_soql(
            "SELECT OrderNumber, Status FROM Order WHERE ShipToContactId = {} ORDER BY CreatedDate DESC LIMIT 1",
            contact_id,
        )
        return _first(self._salesforce.query(query))

    @measure_latency(_SALESFORCE, provider="salesforce", call_sid_attr="call_sid")
    def create_task(self, contact_id: str, description: str) -> str:
        """Note the call as a finished task of the contact; returns the task's id."""
        fields = {"WhoId": contact_id, "Subject": "Call", "Status": "Completed", "Description": description}
        tasks: Any = self._salesforce.Task
        return str(tasks.create(fields)["id"])


def _first(result: Any) -> dict[str, Any] | None:
    records: list[dict[str, Any]] = result["records"]
    return records[0] if records else None
