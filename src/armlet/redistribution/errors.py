"""The errors that armlet raises on purpose. Each message is one line; the command line exits with 2."""


class ArmletError(Exception):
    """Base of every error that armlet raises on purpose."""


class ArgumentError(ArmletError, ValueError):
    """An argument has a value, a type or a shape that the operation does not support."""
