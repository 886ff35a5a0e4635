"""MLflow as a projection of what the stages wrote."""

from pathlib import Path

from zk0.errors import StageError

# The store's two places, below a project's root.
DATABASE = Path("mlflow.db")
ARTIFACTS = Path("mlruns")

# Of a run's artifacts, the folders with the files that stages wrote, and with its rollouts as videos.
FILES = "results"
VIDEOS = "videos"


class TrackingError(StageError):
    """Something cannot be tracked or found; the message says what and which command mends it."""
