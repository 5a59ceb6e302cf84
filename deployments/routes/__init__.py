"""Routes by area; each module makes one router for one service."""

from typing import Annotated

from fastapi import Depends, Request


async def _tenant(request: Request) -> str:
    """Whose request this is: the edge has looked at the key already. (A plain function would cost a thread hop.)"""
    return str(request.state.tenant)


Tenant = Annotated[str, Depends(_tenant)]

__all__ = ["Tenant"]
