"""Trains the same recommender on Amazon Beauty, to hold the implementation against published numbers."""

from pathlib import Path

from models.train import data
from models.train.recommendation import Recommendation, known_histories

FILES = (data.BEAUTY,)


def prepare(directory: Path, _out: Path) -> Recommendation:
    """The recipe for the data in `directory`; nothing is known of the items but their numbers."""
    purchases = data.read_beauty(directory / data.BEAUTY)
    return Recommendation(purchases, known_histories(purchases), [()] * len(purchases.items))
