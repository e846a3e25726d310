"""The exporter needs torch, transformers and sentencepiece, which a serving environment does not have."""

from importlib.util import find_spec

collect_ignore_glob = []
if find_spec("torch") and find_spec("transformers") and find_spec("sentencepiece"):
    from tests.export.exported import exports  # noqa: F401 - a fixture
else:
    collect_ignore_glob = ["test_*.py"]
