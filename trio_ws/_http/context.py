"""What an application keeps with a request, and with the connection that follows from it.

This module owns the mapping from types to values. It knows nothing of requests or connections.
"""

from __future__ import annotations

from typing import TypeVar, final

T = TypeVar("T")


@final
class Context:
    """Values that belong to one request, or one connection, each found by its type::

        request.context[User] = User("ada")  # in a hook that runs before the handler
        ws.context[User].name                # in the handler: a User, to type checkers too

    The key is a class of your own, so two libraries never use the same one, and a type checker sees
    a misspelt key. One value is kept for each type.

    Raises:
        KeyError: there is no value of the type.
        TypeError: the value set is not of the type.
    """

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[type[object], object] = {}

    def __getitem__(self, kind: type[T]) -> T:
        value = self.get(kind)
        if value is None:
            raise KeyError(
                f"no {kind.__name__} was put into this context: set request.context"
                f"[{kind.__name__}] in process_request, or in a hook before the route"
            )
        return value

    def __setitem__(self, kind: type[T], value: T) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"the value for {kind.__name__} is a {type(value).__name__}")
        self._values[kind] = value

    def __contains__(self, kind: type[object]) -> bool:
        return kind in self._values

    def get(self, kind: type[T]) -> T | None:
        """The value of this type, or `None` if there is none."""
        value = self._values.get(kind)
        return value if isinstance(value, kind) else None

    def __repr__(self) -> str:
        return f"<Context with {', '.join(kind.__name__ for kind in self._values) or 'nothing'}>"
