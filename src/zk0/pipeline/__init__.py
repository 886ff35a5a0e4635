"""One function per DVC stage: params and paths in, files out."""
