"""Routes by area; each module makes one router for one service."""

from fastapi import Request


def tenant_of(request: Request) -> str:
    """Whose request this is: the edge has looked at the key already.

    (Not a dependency of FastAPI's: finding one, and a header as a parameter, took a short speech request 0.16 ms.)
    """
    return str(request.state.tenant)


__all__ = ["tenant_of"]
