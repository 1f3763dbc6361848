"""Runs requests on the logical unit of an export as an initiator should."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EIO
from typing import Final, NamedTuple

from hwvirt.host.nbd.export import Export
from hwvirt.host.nbd.requests import FLUSH, Request, command_of, rest_of, transfer_of
from hwvirt.host.nbd.wire import CommandFlag, CommandType
from hwvirt.scsi.command import Command, Completion, LogicalUnit
from hwvirt.scsi.sense import decode_sense, errno_of
from hwvirt.scsi.status import SenseKey, Status

__all__ = ["Failure", "failure_of", "perform", "transfer"]

_ATTEMPTS: Final = 3
_NOTHING_TO_DO: Final = Completion(Status.GOOD)


class Failure(NamedTuple):
    """Why a command failed: an errno, and words for people."""

    error: int
    text: str


async def transfer(export: Export, requests: Sequence[Request]) -> list[Completion]:
    """How each of many READs or WRITEs ended, in order: each is a command that says everything, FUA too."""
    return await _execute(export.lun, [transfer_of(export, request) for request in requests])


async def perform(export: Export, requests: Sequence[Request]) -> list[Completion]:
    """How each request ended, in order: one batch of commands, then one flush for all FLUSH and FUA that need it.

    What needs more than one command is finished in between, a command after the other, up to the first that fails.
    """
    commands = [command_of(export, request) for request in requests]
    completions = iter(await _execute(export.lun, [command for command in commands if command is not None]))
    ended = [_NOTHING_TO_DO if command is None else next(completions) for command in commands]
    for index, request in enumerate(requests):
        for command in rest_of(export, request):
            if not ended[index].good:
                break
            (ended[index],) = await _execute(export.lun, [command])
    to_flush = [index for index, request in enumerate(requests) if _wants_flush(request) and ended[index].good]
    if to_flush:
        (flushed,) = await _execute(export.lun, [FLUSH])
        for index in to_flush:
            ended[index] = flushed
    return ended


def failure_of(completion: Completion) -> Failure | None:
    """None for GOOD."""
    if completion.status == Status.GOOD:
        return None
    if completion.status != Status.CHECK_CONDITION or not completion.sense:
        return Failure(EIO, Status(completion.status).name.replace("_", " "))
    sense = decode_sense(completion.sense)
    return Failure(errno_of(sense), str(sense))


async def _execute(lun: LogicalUnit, commands: Sequence[Command]) -> list[Completion]:
    """One completion for each command; those that met a UNIT ATTENTION were not begun and are sent again (SAM-5 5.14)."""
    completions = await lun.execute(commands) if commands else []
    for _ in range(_ATTEMPTS - 1):
        again = [index for index, completion in enumerate(completions) if completion.status and _met_attention(completion)]
        if not again:
            return completions
        for index, completion in zip(again, await lun.execute([commands[index] for index in again]), strict=True):
            completions[index] = completion
    return completions


def _met_attention(completion: Completion) -> bool:
    if completion.status != Status.CHECK_CONDITION or not completion.sense:
        return False
    return decode_sense(completion.sense).key == SenseKey.UNIT_ATTENTION


def _wants_flush(request: Request) -> bool:
    """READ needs none, and WRITE carries FUA in its CDB."""
    if request.type == CommandType.FLUSH:
        return True
    return request.type > CommandType.WRITE and bool(request.flags & CommandFlag.FUA)
