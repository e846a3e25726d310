"""Attention models from a bundle on disk to answers; knows no HTTP and no Ray."""
