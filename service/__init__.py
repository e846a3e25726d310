"""Many callers on one model: HTTP, scheduling, metrics and the Ray Serve host."""
