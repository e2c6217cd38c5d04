"""The `simple-salesforce` client: queries, records of an object, Apex and the other REST calls."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from ..model.operation import OperationType
from .base import ClientInstrumentor
from .measured_call import CallPlan, Planner, measured, operation
from .patching import Target

__all__ = ["SalesforceInstrumentor"]

_OF_THE_CLIENT: Final = (
    "query",
    "query_more",
    "query_all",
    "search",
    "quick_search",
    "apexecute",
    "restful",
    "toolingexecute",
    "describe",
    "limits",
)
_OF_AN_OBJECT: Final = (
    "get",
    "get_by_custom_id",
    "create",
    "upsert",
    "update",
    "delete",
    "deleted",
    "updated",
    "describe",
    "metadata",
)


class SalesforceInstrumentor(ClientInstrumentor):
    """`SalesforceInstrumentor().instrument()` measures every `Salesforce` client of the process.

    `query_all` is one measurement however many pages it fetches; of `query_all_iter` each page is one, since the bot
    works between them.
    """

    requires: ClassVar[tuple[str, ...]] = ("simple-salesforce >= 1.12.6",)

    def targets(self) -> Iterable[Target]:
        from simple_salesforce.api import Salesforce, SFType

        for method in _OF_THE_CLIENT:
            if method in vars(Salesforce):
                yield Target(Salesforce, method, measured(_plan_of_client(method)))
        for method in _OF_AN_OBJECT:
            if method in vars(SFType):
                yield Target(SFType, method, measured(_plan_of_object(method)))


def _plan_of_client(method: str) -> Planner:
    plan = CallPlan(operation(OperationType.SALESFORCE, method, "salesforce"))
    return lambda _instance, _args, _kwargs: plan


def _plan_of_object(method: str) -> Planner:
    def plan(instance: Any, _args: tuple[Any, ...], _kwargs: Mapping[str, Any]) -> CallPlan:
        return CallPlan(operation(OperationType.SALESFORCE, f"{instance.name}.{method}", "salesforce"))

    return plan
