"""zk0: federated training of SmolVLA on SO-100 arms, as an MLOps pipeline."""

__version__ = "0.1.0"
