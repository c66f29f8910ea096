"""What can keep the local stack from starting, in words for the person who started it."""


class LocalStackError(Exception):
    """The local stack cannot start or go on; the message says why and what to do."""


class NoBinaries(LocalStackError):
    """No PostgreSQL or Valkey server was found on this machine."""


class OtherMajorVersion(LocalStackError):
    """The database folder was made by another major version of PostgreSQL."""


class AlreadyRunning(LocalStackError):
    """Another `up` uses the same METADET_HOME."""


class CannotBecomeUnprivileged(LocalStackError):
    """PostgreSQL refuses to run as root and no way to run it as somebody else was found."""


class PortTaken(LocalStackError):
    """The port asked for is used by another program."""


class NotHealthy(LocalStackError):
    """A part did not become ready."""
