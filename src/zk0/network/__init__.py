"""Services: what runs beside the pipeline, started and stopped by one command."""
