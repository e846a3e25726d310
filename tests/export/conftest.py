"""The exporter needs torch and transformers, which a serving environment does not have."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") and find_spec("transformers") else ["test_*.py"]
