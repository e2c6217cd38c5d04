"""Salesforce, through simple-salesforce: who calls, where their order is, and a note of the call."""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import requests
from requests.adapters import HTTPAdapter
from simple_salesforce.api import Salesforce
from simple_salesforce.format import format_soql

from callbot_latency import Alert, OperationType, measure_latency


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


def _tell_the_call(alert: Alert) -> None:
    """Salesforce hangs: whoever talks to the caller may want to say something."""
    records = _RECORDS.get(alert.metric.call_sid or "")
    if records is not None:
        records.on_hang()


class CustomerRecords:
    """What one call reads and writes in Salesforce. Its methods block: run them with ``asyncio.to_thread``.

    Args:
        salesforce: the client, shared by all calls.
        call_sid: the call.
        on_hang: called while a look-up takes longer than its critical threshold; on another thread than the caller's,
            since nothing but a thread waits for what blocks.

    """

    def __init__(self, salesforce: Salesforce, call_sid: str, on_hang: Callable[[], object] = lambda: None) -> None:
        self._salesforce = salesforce
        self.call_sid = call_sid
        self.on_hang = on_hang
        _RECORDS[call_sid] = self

    @measure_latency(_SALESFORCE, provider="salesforce", call_sid_attr="call_sid", on_deadline=_tell_the_call)
    def find_contact(self, phone: str) -> dict[str, Any] | None:
        """The contact with this telephone number."""
        query = format_soql("SELECT Id, FirstName FROM Contact WHERE Phone = {} LIMIT 1", phone)
        return _first(self._salesforce.query(query))

    @measure_latency(_SALESFORCE, provider="salesforce", call_sid_attr="call_sid", on_deadline=_tell_the_call)
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


# Of the calls that there are: on_deadline= is written where the method is, and is told the call by its id.
_RECORDS: Final[WeakValueDictionary[str, CustomerRecords]] = WeakValueDictionary()


def _first(result: Any) -> dict[str, Any] | None:
    records: list[dict[str, Any]] = result["records"]
    return records[0] if records else None
