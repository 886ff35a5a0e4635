"""MLflow as a projection of what the stages wrote."""
