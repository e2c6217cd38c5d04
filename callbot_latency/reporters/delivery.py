"""What a reporter says of a batch that did not arrive."""

__all__ = ["PermanentError", "TransientError"]


class TransientError(Exception):
    """Not now: the server is away, busy or too slow. What it did not take is handed over again.

    Args:
        message: what happened and, where somebody can do something, what to do; without secrets.
        retry_after_s: how long the server asks us to wait, in seconds; where None, the wait grows with each try.
        delivered: how many of the batch, from its beginning, arrived all the same.
        refused: how many more of that beginning were refused for good: all after the first ``delivered + refused``
            is handed over again.

    """

    # Of the class, for one derived from it whose author forgot super().__init__().
    retry_after_s: float | None = None
    delivered: int = 0
    refused: int = 0

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, delivered: int = 0, refused: int = 0
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.delivered = delivered
        self.refused = refused


class PermanentError(Exception):
    """Never: the server refuses it, and would again.

    Args:
        message: what was refused and what to do; without secrets.
        refused: how many of the batch were refused, the others having arrived; None for all of it.

    """

    refused: int | None = None

    def __init__(self, message: str, *, refused: int | None = None) -> None:
        super().__init__(message)
        self.refused = refused
