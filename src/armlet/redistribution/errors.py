"""The errors armlet raises on purpose: one clear line each, and the command line exits with 2 on any of them."""


class ArmletError(Exception):
    """Base of every error that armlet raises on purpose."""


class ArgumentError(ArmletError, ValueError):
    """An argument has a value, a type or a shape that the operation cannot take."""
