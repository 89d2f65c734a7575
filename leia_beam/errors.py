"""From what went wrong to one line and an exit code.

Every class is built from one string, because Beam and torch's DataLoader rebuild exceptions in another process as
``cls(str(exception))``. The exit codes are part of the contract (README.md); every command ends through `exit_code_of`.
"""


class LeiaError(Exception):
    """An error that a user can act on: one line with what, which value, where, and what to do."""

    exit_code = 1


class UsageError(LeiaError):
    """Usage or configuration: a missing file, an unknown wiki, a wrong tokenizer or schema."""

    exit_code = 2


class DamagedInput(LeiaError):
    """An input is no dump, ends early, or has a bad checksum; or a file of a build is not what its manifest says."""

    exit_code = 3


class TruncatedInput(DamagedInput):
    """An input ends early: what stands before its end is whole, which `--salvage` keeps."""


class TooManyRejects(LeiaError):
    """More records were rejected than ``--max-rejects`` allows."""

    exit_code = 4


class MissingResource(LeiaError):
    """The environment lacks something: disk, memory, a package, a cluster."""

    exit_code = 5


class AnotherProcess(LeiaError):
    """Another process of the same work failed, and says why: this one ends with it."""


class OtherBuild(LeiaError):
    """The output folder holds another build."""

    exit_code = 6


class Interrupted(LeiaError):
    """The run was interrupted; what is finished is kept, and the same command goes on from there."""

    exit_code = 75


def exit_code_of(error: BaseException) -> int:
    """The exit code with which a command ends because of `error`."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.exit_code
    if isinstance(error, MemoryError):
        return MissingResource.exit_code
    return error.exit_code if isinstance(error, LeiaError) else 1
