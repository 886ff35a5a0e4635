"""A checkpoint, read as data before anything of it reaches LeRobot, torch or transformers.

Who made a checkpoint chose every byte of it, and LeRobot takes it at its word: it imports the classes that a processor
file names, opens the files that it points to, and hands a folder to transformers. Here its files are parsed by strict
models first. Only steps, settings and files that a SmolVLA checkpoint has are known, nothing is executed, no path is
followed out of the folder, and sizes are bounded. Neither torch nor lerobot is imported.
"""

from zk0.checkpoints.folder import CheckpointError
from zk0.checkpoints.reading import Checkpoint, Pipeline, read_checkpoint

__all__ = ["Checkpoint", "CheckpointError", "Pipeline", "read_checkpoint"]
