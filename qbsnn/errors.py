"""Errors that a user's input can cause. The command line prints them as one paragraph, without a stack trace.

Each message names the thing, the value that came and what would be right.
"""


class QBSNNError(Exception):
    """Base of the errors below."""


class SettingsError(QBSNNError):
    """A setting is missing, misspelt, of the wrong type or out of bounds."""


class ArgumentError(SettingsError):
    """An argument of a class or function is out of bounds; the message begins with the argument's name.

    Whoever builds from settings puts the place in front: ``s_max must be ...`` becomes ``neuron.s_max must be ...``.
    """


class DataError(QBSNNError):
    """Data is absent, damaged or not what its source says."""


class CheckpointError(QBSNNError):
    """A checkpoint cannot be read, or is not one of this framework."""


class BusyError(QBSNNError):
    """Another process writes into a run directory."""


class EnvironmentFault(QBSNNError):
    """The machine did not give what a run needs: space, memory, permission."""


class DivergenceError(QBSNNError):
    """A loss, a gradient or a scale left the numbers that training can go on from."""


class DeployError(QBSNNError):
    """A network has no absorbed or no integer form; the message says which layer and why."""


class EnergyError(QBSNNError):
    """A layer's operations cannot be counted; the message says which layer and why."""


class VerificationError(QBSNNError):
    """Two engines that must agree did not."""
