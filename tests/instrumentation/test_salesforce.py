"""The real `simple-salesforce` client against a server that speaks its API: each call is measured once."""

import json
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce
from simple_salesforce.api import SFType
from simple_salesforce.exceptions import SalesforceMalformedRequest, SalesforceResourceNotFound

from callbot_latency import OperationStatus, OperationType, instrument, latency_tracker, uninstrument
from tests.conftest import FinishedSpans
from tests.support.scripted_http import Answer, Server, streamed, whole

SOQL = "SELECT Id FROM Contact WHERE Phone = '+33612345678'"
SESSION = "00Dxx0000001gPL!AQ4verysecret"


class Plain(HTTPAdapter):
    """Speaks http where the client says https: the server has no certificate."""

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, *args, **kwargs)


class Bounded(Plain):
    """The same with a time-out."""

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        return super().send(request, *args, **{**kwargs, "timeout": 0.1})


def client_of(server: Server, adapter: HTTPAdapter) -> Salesforce:
    session = requests.Session()
    session.mount("https://", adapter)
    return Salesforce(instance=server.url.removeprefix("http://"), session_id=SESSION, session=session)


@pytest.fixture
def client(server: Server) -> Any:
    client = client_of(server, Plain())
    yield client
    client.session.close()


@pytest.fixture
def wrapped(spans: FinishedSpans) -> FinishedSpans:
    """Measuring is on, and the client is wrapped."""
    instrument("salesforce")
    return spans


def page(*records: str, following: str | None = None) -> Answer:
    found = {"totalSize": 2, "done": following is None, "records": [{"Id": record} for record in records]}
    return whole(json.dumps(found | ({"nextRecordsUrl": following} if following else {})).encode(), after_s=0.03)


def names() -> list[str]:
    return [metric.operation_name for metric in latency_tracker.metrics]


def test_a_query_is_one_measurement(wrapped: FinishedSpans, server: Server, client: Salesforce) -> None:
    """Its type, name and provider; nothing of the SOQL or the session."""
    server.answers(page("003A"))
    assert client.query(SOQL)["records"] == [{"Id": "003A"}]
    (metric,) = latency_tracker.metrics
    assert (metric.operation_type, metric.operation_name) == (OperationType.SALESFORCE, "query")
    assert (metric.provider, metric.status) == ("salesforce", OperationStatus.SUCCESS)
    assert metric.latency_ms >= 30
    (span,) = wrapped()
    for secret in ("Contact", "33612345678", SESSION, "secret"):
        assert secret not in span.to_json()


def test_all_pages_of_a_query_are_one_measurement(wrapped: FinishedSpans, server: Server, client: Salesforce) -> None:
    """What the bot waited for, however many requests it took."""
    server.answers(page("003A", following="/services/data/v59.0/query/01g-2000"), page("003B"))
    assert len(client.query_all(SOQL)["records"]) == 2
    assert names() == ["query_all"]
    assert latency_tracker.metrics[0].latency_ms >= 60


def test_pages_that_are_asked_for_are_measurements(wrapped: FinishedSpans, server: Server, client: Salesforce) -> None:
    """`query_more` is a call of its own, and so is each page of `query_all_iter`."""
    following = "/services/data/v59.0/query/01g-2000"
    server.answers(page("003A", following=following), page("003B"), page("003A", following=following), page("003B"))
    client.query(SOQL)
    client.query_more(following, identifier_is_url=True)
    assert len(list(client.query_all_iter(SOQL))) == 2
    assert names() == ["query", "query_more", "query", "query_more"]


def test_records_are_named_by_their_object(wrapped: FinishedSpans, server: Server, client: Salesforce) -> None:
    """`Contact.create`: never the record's id or values."""
    made = whole(b'{"id": "003A", "success": true, "errors": []}', status=201)
    server.answers(made, whole(b'{"Id": "003A"}'), made, made, made)
    contact: Any = client.Contact
    contact.create({"LastName": "Moreau"})
    contact.get("003A")
    contact.update("003A", {"LastName": "M"})
    contact.upsert("Phone__c/0612345678", {"LastName": "M"})
    contact.delete("003A")
    assert names() == ["Contact.create", "Contact.get", "Contact.update", "Contact.upsert", "Contact.delete"]
    told = "".join(span.to_json() for span in wrapped())
    assert "003A" not in told
    assert "Moreau" not in told


def test_apex_and_rest_are_named_by_their_method(wrapped: FinishedSpans, server: Server, client: Salesforce) -> None:
    """Not by their path, which holds ids."""
    server.answers(whole(b'{"ok": true}'))
    client.apexecute("Callback/0612345678", method="POST", data={"a": 1})
    client.restful("sobjects/Contact/003A")
    client.search("FIND {Moreau}")
    assert names() == ["apexecute", "restful", "search"]


def test_an_error_reaches_the_caller_and_tells_no_query(
    wrapped: FinishedSpans, server: Server, client: Salesforce
) -> None:
    """The exception quotes the SOQL; span and metric have its type, status and code."""
    fault = json.dumps([{"errorCode": "MALFORMED_QUERY", "message": f"unexpected token: {SOQL}"}]).encode()
    server.answers(whole(fault, status=400), whole(b'[{"errorCode": "NOT_FOUND", "message": "x"}]', status=404))
    with pytest.raises(SalesforceMalformedRequest, match="unexpected token"):
        client.query(SOQL)
    contact: Any = client.Contact
    with pytest.raises(SalesforceResourceNotFound):
        contact.get("003A")
    assert [(m.status, m.error_message) for m in latency_tracker.metrics] == [
        (OperationStatus.ERROR, "SalesforceMalformedRequest (400, MALFORMED_QUERY)"),
        (OperationStatus.ERROR, "SalesforceResourceNotFound (404, NOT_FOUND)"),
    ]
    assert "SELECT" not in "".join(span.to_json() for span in wrapped())


def test_a_timeout_is_a_timeout(wrapped: FinishedSpans, server: Server) -> None:
    """Requests' own exception reaches the caller."""
    server.answers(streamed(head_after_s=20))
    client = client_of(server, Bounded())
    with client.session, pytest.raises(requests.ReadTimeout):
        client.query(SOQL)
    (metric,) = latency_tracker.metrics
    assert (metric.status, metric.error_message) == (OperationStatus.TIMEOUT, "ReadTimeout")


def test_uninstrument_restores_exactly(wrapped: FinishedSpans, server: Server, client: Salesforce) -> None:
    """The very functions; what was called twice counted once."""
    uninstrument("salesforce")
    before = (dict(vars(Salesforce)), dict(vars(SFType)))
    instrument("salesforce")
    instrument("salesforce")
    server.answers(page("003A"))
    client.query(SOQL)
    assert names() == ["query"]
    uninstrument("salesforce")
    assert (dict(vars(Salesforce)), dict(vars(SFType))) == before
    client.query(SOQL)
    assert names() == ["query"]


def test_the_name_of_an_object_is_well_formed(wrapped: FinishedSpans, server: Server) -> None:
    """Half of a surrogate pair would cost the whole batch that it is exported in."""
    named = SFType("Bad\udc80", session_id=SESSION, sf_instance="127.0.0.1:9", session=requests.Session())
    with pytest.raises(requests.RequestException):
        named.describe()
    assert names() == ["Bad\ufffd.describe"]
