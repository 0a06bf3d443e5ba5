from qbsnn.data.events.readers.recording import Convention, Recording
from qbsnn.data.events.readers.registry import READERS, read

__all__ = ["READERS", "Convention", "Recording", "read"]
